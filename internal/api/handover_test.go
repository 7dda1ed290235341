package api

import (
	"errors"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHandOver(t *testing.T) {
	d := &recorder{}
	if err := serve(t, d).HandOver(t.Context(), "fairlead v2 (pid 7)"); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"hand over to fairlead v2 (pid 7)"}, d.calls); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// A director of an older version knows nothing of newer requests.
func TestUnknownProcedure(t *testing.T) {
	c := serveHandler(t, http.NotFoundHandler())
	if err := c.HandOver(t.Context(), "another"); !errors.Is(err, ErrUnknownProcedure) {
		t.Errorf("got %v", err)
	}
}
