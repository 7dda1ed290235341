package realserver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// What makes a real server survive a reboot. systemd-sysctl sets the sysctls early,
// and again when an interface appears; the unit adds the VIP after that.
const (
	persistedState = "/etc/fairlead/" + stateName
	sysctlFile     = "/etc/sysctl.d/90-fairlead-realserver.conf"
	unitName       = "fairlead-realserver.service"
	unitFile       = "/etc/systemd/system/" + unitName
	unitLink       = "/etc/systemd/system/multi-user.target.wants/" + unitName
)

// packagedUnits are where a package has the unit: then only the link is made.
var packagedUnits = []string{"/usr/lib/systemd/system/" + unitName, "/lib/systemd/system/" + unitName}

// mark begins the files that are ours to replace and to remove.
const mark = "# Written by `fairlead realserver up --persist`; `down --persist` removes it.\n"

// unit returns the service that keeps a real server, with the program's path.
func unit(program string) string {
	return `[Unit]
Description=Real server of fairlead: the VIP on lo, and nobody told
Documentation=https://github.com/fairlead-lb/fairlead
After=network.target systemd-sysctl.service
# The interface may come late.
StartLimitIntervalSec=0
ConditionPathExists=|` + persistedState + `
ConditionPathExists=|/run/fairlead/` + stateName + `

[Service]
Type=notify
ExecStart=` + program + ` realserver run
Restart=on-failure
RestartSec=1s
RuntimeDirectory=fairlead
RuntimeDirectoryPreserve=yes
CapabilityBoundingSet=CAP_NET_ADMIN CAP_BPF CAP_PERFMON
RestrictAddressFamilies=AF_UNIX AF_NETLINK
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
`
}

// persist returns the files of the real server that s describes, in the order in
// which they are to be written; none if s has no VIP.
func (r *RealServer) persist(s state) ([]setting, error) {
	files := []setting{
		{subject{kindFile, sysctlFile}, ""},
		{subject{kindFile, persistedState}, ""},
		{subject{kindFile, unitFile}, ""},
		{subject{kindLink, unitLink}, ""},
	}
	if len(s.VIPs) == 0 {
		return files, nil
	}
	text, err := persistable(s).text()
	if err != nil {
		return nil, err
	}
	files[0].Value = sysctlText(s)
	files[1].Value = text
	files[2].Value = mark + unit(r.config.Executable)
	files[3].Value = unitFile
	for _, packaged := range packagedUnits {
		if _, err := os.Stat(r.path(packaged)); err == nil {
			files[2].Value, files[3].Value = "", packaged
			break
		}
	}
	return files, nil
}

// persistable returns what of a state outlives a boot: the VIPs, and the sysctls
// that the host would have without the file in sysctl.d.
func persistable(s state) *state {
	kept := &state{VIPs: s.VIPs, Before: []setting{}}
	for _, b := range s.Before {
		if b.Kind == kindSysctl {
			kept.Before = append(kept.Before, b)
		}
	}
	return kept
}

func sysctlText(s state) string {
	var text strings.Builder
	text.WriteString(mark)
	for _, b := range s.Before {
		if b.Kind == kindSysctl {
			fmt.Fprintf(&text, "%s = %s\n", dotted(b.Name), wanted(b))
		}
	}
	return text.String()
}

// wanted returns the value that a real server's sysctl has, given what it was.
func wanted(before setting) string {
	for _, rule := range arpRules {
		if !strings.HasSuffix(before.Name, "/"+rule.key) {
			continue
		}
		if slices.Contains(rule.accept, before.Value) {
			return before.Value
		}
		return rule.accept[0]
	}
	return loose
}

// seed fills in what an earlier boot left: the VIPs, and the values that sysctls
// would have if systemd-sysctl had not set them already.
func (r *RealServer) seed(s *state) error {
	persisted, err := readState(r.path(persistedState))
	if persisted == nil || err != nil {
		return err
	}
	s.VIPs = persisted.VIPs
	for _, b := range persisted.Before {
		if value, err := readSysctl(b.Name); err == nil && value == wanted(b) {
			s.Before = append(s.Before, b)
		}
	}
	return nil
}

// toFiles returns the changes that make the files so. It refuses to touch a file
// that someone else wrote.
func (r *RealServer) toFiles(files []setting) ([]change, error) {
	var changes []change
	for _, f := range files {
		found, err := r.readEntry(f.subject)
		if err != nil {
			return nil, err
		}
		if f.Kind == kindFile && f.Name != persistedState && found != "" && !strings.HasPrefix(found, mark) {
			if f.Value == "" {
				continue
			}
			return nil, fmt.Errorf("write %s: someone else wrote the file that is there: move it away: `mv %[1]s %[1]s.old`", f.Name)
		}
		if found != f.Value {
			changes = append(changes, change{f.subject, found, f.Value, "survive a reboot"})
		}
	}
	return changes, nil
}

func (r *RealServer) path(name string) string { return filepath.Join(r.config.Root, name) }

// readEntry returns the contents of a file or what a link says, "" if there is none.
func (r *RealServer) readEntry(s subject) (string, error) {
	var text string
	var err error
	if s.Kind == kindLink {
		text, err = os.Readlink(r.path(s.Name))
	} else {
		var contents []byte
		contents, err = os.ReadFile(r.path(s.Name))
		text = string(contents)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return text, nil
}

// setEntry is the setter of files and links.
func (r *RealServer) setEntry(s subject, value string) error {
	path := r.path(s.Name)
	if value == "" {
		if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if s.Kind == kindFile {
		return writeFile(path, value)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(value, path)
}
