package director

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/fairlead-lb/fairlead/internal/dataplane"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

func heldFragment(id uint32, bytes int) dataplane.HeldFragment {
	return dataplane.HeldFragment{
		Datagram: lvs.Datagram{
			Source: netip.MustParseAddr("203.0.113.5"), Destination: netip.MustParseAddr("192.0.2.10"),
			Identification: id, Protocol: lvs.UDP,
		},
		Interface: 7,
		Frame:     make([]byte, bytes),
	}
}

// A fragmentRecorder is a sender that notes what it is asked. It knows of the
// datagrams in known that their first fragment has come.
type fragmentRecorder struct {
	known                    map[uint32]bool
	resumed                  []uint32
	asked, givenUp, refused  int
	oversized                int
	failToResume, failToTell error
}

func (r *fragmentRecorder) Resume(f dataplane.HeldFragment) (bool, error) {
	r.asked++
	if !r.known[f.Datagram.Identification] {
		return false, nil
	}
	r.resumed = append(r.resumed, f.Datagram.Identification)
	return true, r.failToResume
}

func (r *fragmentRecorder) SendInFragments(dataplane.OversizedPacket) error {
	r.oversized++
	return r.failToResume
}

func (r *fragmentRecorder) GiveUp(n int) error { r.givenUp += n; return r.failToTell }
func (r *fragmentRecorder) Refuse(n int) error { r.refused += n; return r.failToTell }

func newTestKeeper(most int) (*fragmentKeeper, *fragmentRecorder) {
	r := &fragmentRecorder{known: map[uint32]bool{}}
	k := newFragmentKeeper(nil, r, slog.New(slog.DiscardHandler))
	k.holder = newFragmentHolder(most)
	return k, r
}

func (k *fragmentKeeper) mustTake(t *testing.T, f dataplane.HeldFragment) {
	t.Helper()
	if err := k.take(f); err != nil {
		t.Fatal(err)
	}
}

func TestFragmentsAreSentWhenTheFirstComes(t *testing.T) {
	k, r := newTestKeeper(1 << 20)
	for _, id := range []uint32{1, 2, 1, 1} {
		k.mustTake(t, heldFragment(id, 100))
	}
	if len(r.resumed) != 0 {
		t.Errorf("sent %v before the first fragment came", r.resumed)
	}
	r.known[1] = true
	k.mustTake(t, dataplane.HeldFragment{Datagram: heldFragment(1, 0).Datagram})
	if len(r.resumed) != 3 {
		t.Errorf("sent %v, want all three of datagram 1", r.resumed)
	}
	// One that was still on its way here when the first one came.
	k.mustTake(t, heldFragment(1, 100))
	if len(r.resumed) != 4 {
		t.Errorf("sent %v, want one more of datagram 1", r.resumed)
	}
	if want := 100 + heldCost; k.holder.bytes != want {
		t.Errorf("%d bytes are kept, want %d", k.holder.bytes, want)
	}
}

func TestFragmentsAreGivenUp(t *testing.T) {
	h := newFragmentHolder(1 << 20)
	now := time.Now()
	for i, id := range []uint32{1, 2, 1} {
		h.keep(heldFragment(id, 100), now.Add(time.Duration(i)*heldFor/4))
	}
	for _, step := range []struct {
		after time.Duration
		want  int
	}{{heldFor - 1, 0}, {heldFor, 2}, {heldFor + heldFor/4, 1}, {time.Hour, 0}} {
		if got := len(h.expire(now.Add(step.after))); got != step.want {
			t.Errorf("after %v %d fragments are given up, want %d", step.after, got, step.want)
		}
	}
	if h.bytes != 0 || len(h.datagrams) != 0 || len(h.waiting) != 0 {
		t.Errorf("%d bytes of %d datagrams are kept in the end", h.bytes, len(h.datagrams))
	}
}

// What waits too long is counted, unless its datagram is known after all.
func TestExpiredFragmentsAreCounted(t *testing.T) {
	k, r := newTestKeeper(1 << 20)
	for id := range uint32(4) {
		k.mustTake(t, heldFragment(id, 100))
	}
	r.known[3] = true
	for i := range k.holder.waiting {
		k.holder.waiting[i].at = time.Now()
	}
	if err := k.expire(); err != nil {
		t.Fatal(err)
	}
	if r.givenUp != 3 || len(r.resumed) != 1 {
		t.Errorf("%d given up and %v sent, want 3 and datagram 3", r.givenUp, r.resumed)
	}
}

// Who comes when there is no room is refused; nobody gives way to it.
func TestFullHolderRefuses(t *testing.T) {
	k, r := newTestKeeper(10 * (100 + heldCost))
	for id := range uint32(15) {
		k.mustTake(t, heldFragment(id, 100))
	}
	if r.refused != 5 || len(k.holder.datagrams) != 10 {
		t.Errorf("%d refused, %d kept, want 5 and 10", r.refused, len(k.holder.datagrams))
	}
	r.known[0] = true
	k.mustTake(t, dataplane.HeldFragment{Datagram: heldFragment(0, 0).Datagram})
	k.mustTake(t, heldFragment(20, 100))
	if r.refused != 5 {
		t.Errorf("%d refused after one was sent, want 5", r.refused)
	}
}

// A fragment that can't be sent, or a count that fails, does not end the director.
func TestLostFragmentsEndNothing(t *testing.T) {
	k, r := newTestKeeper(heldCost)
	r.failToResume, r.failToTell = errors.New("no such device"), errors.New("no such program")
	r.known[1] = true
	k.mustTake(t, heldFragment(1, 100))
	k.mustTake(t, heldFragment(2, 100))
	if r.refused != 1 || len(r.resumed) != 1 {
		t.Errorf("%d refused, %v sent, want one each", r.refused, r.resumed)
	}
}

// cancelled is a source that ends as the data plane does.
type cancelled struct{}

func (cancelled) FollowFragments(context.Context, func(dataplane.HeldFragment) error) error {
	return context.Canceled
}

// FollowOversized brings two packets before.
func (cancelled) FollowOversized(_ context.Context, visit func(dataplane.OversizedPacket) error) error {
	return errors.Join(visit(dataplane.OversizedPacket{}), visit(dataplane.OversizedPacket{}), context.Canceled)
}

func TestKeeperEndsWithItsContext(t *testing.T) {
	r := &fragmentRecorder{failToResume: errors.New("network is down")}
	k := newFragmentKeeper(cancelled{}, r, slog.New(slog.DiscardHandler))
	if err := k.run(t.Context()); err != nil {
		t.Errorf("the keeper ended with %v", err)
	}
	if err := k.runOversized(t.Context()); err != nil || r.oversized != 2 {
		t.Errorf("%d packets were fragmented and it ended with %v, want 2 and nil", r.oversized, err)
	}
}
