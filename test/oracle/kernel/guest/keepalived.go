package main

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	keepalivedConf = "/run/keepalived.conf"
	keepalivedLog  = "/run/keepalived.log"
)

// KeepalivedOf runs the real one with a configuration of its own.
func (m *machine) KeepalivedOf(text string) error {
	if err := os.WriteFile(keepalivedConf, []byte(text), 0o600); err != nil {
		return err
	}
	return m.Keepalived(keepalivedConf)
}

// Keepalived runs the real one, without VRRP, until the machine is closed, and returns
// when the table of IPVS stays as it is: before a check has its first verdict.
func (m *machine) Keepalived(path string) error {
	if err := m.stopBalancing(); err != nil {
		return err
	}
	log, err := os.OpenFile(keepalivedLog, os.O_RDWR|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	m.balancing, err = os.StartProcess("/usr/sbin/keepalived",
		[]string{"keepalived", "--dont-fork", "--log-console", "--check", "--use-file", path},
		&os.ProcAttr{Files: []*os.File{nil, log, log}})
	if err != nil {
		return fmt.Errorf("start keepalived: %w", err)
	}
	const (
		patience = 10 * time.Second
		pause    = 50 * time.Millisecond
	)
	last := ""
	for range patience / pause {
		if err := sleep(pause); err != nil {
			return err
		}
		now, err := m.Ipvsadm([]string{"-Sn"}, "")
		if err != nil {
			return err
		}
		if now.Stdout != "" && now.Stdout == last {
			return nil
		}
		last = now.Stdout
	}
	said, err := readBack(log)
	if err != nil {
		return err
	}
	return fmt.Errorf("no virtual server within %s; it said:\n%s", patience, said)
}

// stopBalancing ends keepalived, which takes its virtual servers out.
func (m *machine) stopBalancing() error {
	if m.balancing == nil {
		return nil
	}
	if err := m.balancing.Signal(unix.SIGTERM); err != nil {
		return fmt.Errorf("stop keepalived: %w", err)
	}
	if _, err := m.balancing.Wait(); err != nil {
		return fmt.Errorf("wait for keepalived: %w", err)
	}
	m.balancing = nil
	return nil
}
