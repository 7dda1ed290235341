package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSaveAndRestoreRefusals(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.save")
	if err := os.WriteFile(bad, []byte("fairlead-save 1\n\nservice tcp:192.0.2.100:80 scheduler nosuch\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const good = "fairlead-save 1\npeer 192.0.2.10\n"
	for _, test := range []struct {
		stdin string
		args  []string
		says  string
	}{
		{"", []string{"save", "FILE"}, "FILE"},
		{"", []string{"save", "-o", "yaml"}, "text or json"},
		{"", []string{"save"}, "director.sock"},
		{good, []string{"restore", "-o", "yaml"}, "text or json"},
		{good, []string{"restore"}, "director.sock"},
		{good, []string{"restore", "-"}, "director.sock"},
		{"", []string{"restore"}, "standard input: it is empty: want what fairlead save prints"},
		{"", []string{"restore", "a", "b"}, "accepts at most 1 arg"},
		{"", []string{"restore", filepath.Join(t.TempDir(), "nosuch")}, "no such file"},
		{"", []string{"restore", bad}, `bad.save: line 3: scheduler "nosuch": want one of`},
		{"", []string{"restore", "--dry-run", bad}, "line 3"},
	} {
		status, stdout, stderr := run(t, test.stdin, test.args...)
		if status != 1 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, test.says) {
			t.Errorf("%q: status %d, stdout %q, stderr %q; want %q", test.args, status, stdout, stderr, test.says)
		}
	}
}

func TestPrintRestore(t *testing.T) {
	for _, test := range []struct {
		report     restoreReport
		text, json string
	}{
		{restoreReport{false, nil}, "restored: 0 changes\n", `{"dry_run":false,"changes":[]}`},
		{restoreReport{false, []string{"add peer 192.0.2.10"}}, "add peer 192.0.2.10\nrestored: 1 change\n",
			`{"dry_run":false,"changes":["add peer 192.0.2.10"]}`},
		{restoreReport{true, []string{"a", "b"}}, "a\nb\ndry run, nothing is changed: 2 changes\n", `{"dry_run":true,"changes":["a","b"]}`},
	} {
		var text, json bytes.Buffer
		if err := printRestore(&text, test.report); err != nil {
			t.Fatal(err)
		}
		if err := printRestoreJSON(&json, test.report); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.text, text.String()); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		if compact := strings.NewReplacer("\n", "", "  ", "", ": ", ":").Replace(json.String()); compact != test.json {
			t.Errorf("got %s, want %s", compact, test.json)
		}
	}
}
