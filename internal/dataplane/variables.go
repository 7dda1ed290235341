package dataplane

import (
	"errors"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// The settings are a variable of the programs, which know therefore where they lie and look
// nothing up. Here they are a map like the others, by this name.
const directorMapSettings = "settings"

// variableSection is the beginning of the names of sections with such a variable.
const variableSection = ".data."

// planeMaps are the maps of a plane.
type planeMaps struct {
	directorMaps
	Settings *ebpf.Map `ebpf:"settings"`
}

func (m *planeMaps) Close() error { return errors.Join(m.directorMaps.Close(), m.Settings.Close()) }

// withVariables makes the variables of what one of the generated functions has loaded
// maps that can be mapped into memory, pinned and replaced.
func withVariables(spec *ebpf.CollectionSpec, err error) (*ebpf.CollectionSpec, error) {
	if err != nil {
		return nil, err
	}
	for section, m := range spec.Maps {
		name, ok := strings.CutPrefix(section, variableSection)
		if !ok {
			continue
		}
		m.Name, m.Flags, m.Contents = name, unix.BPF_F_MMAPABLE, nil // which is all zeros
		delete(spec.Maps, section)
		spec.Maps[name] = m
		for _, program := range spec.Programs {
			rename(program, section, name)
		}
	}
	return spec, nil
}

// rename makes a program use the map by its other name.
func rename(program *ebpf.ProgramSpec, from, to string) {
	for i, instruction := range program.Instructions {
		if instruction.Reference() == from {
			program.Instructions[i] = instruction.WithReference(to)
		}
	}
}
