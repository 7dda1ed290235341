package journey

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// What a switch learns comes behind the frame that taught it; what the story does
// not meet is left out.
func TestWeave(t *testing.T) {
	n := lvsDR(t, false)
	story, err := Tell(n.frames, n.cast)
	if err != nil {
		t.Fatal(err)
	}
	steps := len(story.Steps)
	stranger := lvs.MAC{2, 0, 0, 0, 0, 0x99}
	story.Weave(n.frames, []Learning{
		{n.cast.macOf("client"), "port-1", "client"},
		{n.cast.macOf("director"), "port-2", "director"},
		{n.cast.macOf("rs1"), "port-3", "rs1"},
		{n.cast.macOf("rs2"), "port-4", "rs2"},       // not on the way
		{stranger, "port-1", "client"},               // no frame explains it
		{n.cast.macOf("rs1"), "port-9", "rs2"},       // nor this
		{n.cast.macOf("client"), "port-1", "client"}, // again, by the next frame
	}, n.cast)
	var got []string
	for i, step := range story.Steps {
		if step.Step != i+1 {
			t.Errorf("step %d has number %d", i+1, step.Step)
		}
		if step.At != Switch {
			continue
		}
		got = append(got, step.What)
		before := story.Steps[i-1]
		if step.Direction != In || before.Direction != Out || before.At != step.SourceHost || before.SourceMAC != step.SourceMAC || before.Destination != step.Destination {
			t.Errorf("%+v comes after %+v", step, before)
		}
	}
	want := []string{"learns: client is on port port-1", "learns: client is on port port-1", "learns: director is on port port-2", "learns: rs1 is on port port-3"}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what the switch learns (-want +got):\n%s", diff)
	}
	if len(story.Steps) != steps+len(want) {
		t.Errorf("%d steps, want %d and %d", len(story.Steps), steps, len(want))
	}
}
