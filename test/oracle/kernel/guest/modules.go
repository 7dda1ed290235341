package main

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// wanted are the modules that scenarios need: IPVS, its schedulers and the SIP
// persistence engine; cables; what marks packets.
var wanted = strings.Fields("ip_vs ip_vs_rr ip_vs_wrr ip_vs_lc ip_vs_wlc ip_vs_lblc ip_vs_lblcr ip_vs_dh ip_vs_sh ip_vs_sed ip_vs_nq " +
	"ip_vs_fo ip_vs_ovf ip_vs_mh ip_vs_pe_sip veth sch_ingress cls_matchall act_skbedit")

// loadModules loads the modules of a folder that scenarios need, and those that
// they depend on: the package has no list of that.
func loadModules(folder string) error {
	files := map[string]string{}
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if name, ok := strings.CutSuffix(filepath.Base(path), ".ko"); ok {
			files[strings.ReplaceAll(name, "-", "_")] = path
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("find modules: %w", err)
	}
	loaded := map[string]bool{}
	for _, name := range wanted {
		if err := loadModule(name, files, loaded); err != nil {
			return fmt.Errorf("load module %s: %w", name, err)
		}
	}
	return nil
}

func loadModule(name string, files map[string]string, loaded map[string]bool) error {
	if loaded[name] {
		return nil
	}
	loaded[name] = true
	path, ok := files[name]
	if !ok {
		return fs.ErrNotExist
	}
	needs, err := dependencies(path)
	if err != nil {
		return err
	}
	for _, need := range needs {
		if err := loadModule(need, files, loaded); err != nil {
			return fmt.Errorf("which needs %s: %w", need, err)
		}
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return unix.FinitModule(int(file.Fd()), "", 0)
}

// dependencies returns the modules that a module says it depends on.
func dependencies(path string) ([]string, error) {
	module, err := elf.Open(path)
	if err != nil {
		return nil, err
	}
	defer module.Close()
	section := module.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("read %s: no section .modinfo", path)
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for entry := range bytes.SplitSeq(info, []byte{0}) {
		if list, ok := strings.CutPrefix(string(entry), "depends="); ok && list != "" {
			return strings.Split(strings.ReplaceAll(list, "-", "_"), ","), nil
		}
	}
	return nil, nil
}
