package api

import (
	"context"
	"fmt"
	"net/http"

	"connectrpc.com/connect"

	fairleadv1 "github.com/fairlead-lb/fairlead/api/fairlead/v1"
	"github.com/fairlead-lb/fairlead/api/fairlead/v1/fairleadv1connect"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// HandOver implements [Director].
func (c *Client) HandOver(ctx context.Context, successor string) error {
	_, err := c.service.HandOver(ctx, connect.NewRequest(&fairleadv1.HandOverRequest{Successor: successor}))
	return c.refused(err)
}

func (h *handler) HandOver(ctx context.Context, req *connect.Request[fairleadv1.HandOverRequest]) (
	*connect.Response[fairleadv1.HandOverResponse], error) {
	return answer[fairleadv1.HandOverResponse](h.director.HandOver(ctx, req.Msg.Successor))
}

// NewRemoteHandler returns the API of d for clients of other hosts: without what
// only a process of the director's own host can mean.
func NewRemoteHandler(d Director) http.Handler {
	refuse := connect.NewErrorWriter()
	mux := http.NewServeMux()
	mux.Handle("/", NewHandler(d))
	mux.HandleFunc(fairleadv1connect.DirectorServiceHandOverProcedure, func(w http.ResponseWriter, r *http.Request) {
		// An error here is the client's, which has gone.
		_ = refuse.Write(w, r, toWire(fmt.Errorf("hand over: %w: it is for a process of the director's own host", lvs.ErrInvalid)))
	})
	return mux
}
