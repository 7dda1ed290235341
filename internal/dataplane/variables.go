package dataplane

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// The settings and the interfaces are variables of the programs, which know therefore where they
// lie and look nothing up. Here they are maps like the others, by these names.
const (
	directorMapSettings   = "settings"
	directorMapInterfaces = "interfaces"
)

// variablePrefix is what the programs put before the name of such a variable.
const variablePrefix = "the_"

// planeMaps are the maps of a plane.
type planeMaps struct {
	directorMaps
	Settings   *ebpf.Map `ebpf:"settings"`
	Interfaces *ebpf.Map `ebpf:"interfaces"`
}

func (m *planeMaps) Close() error {
	return errors.Join(m.directorMaps.Close(), m.Settings.Close(), m.Interfaces.Close())
}

// withVariables makes the variables of what one of the generated functions has loaded
// maps that can be mapped into memory, pinned and replaced.
func withVariables(spec *ebpf.CollectionSpec, err error) (*ebpf.CollectionSpec, error) {
	if err != nil {
		return nil, err
	}
	for section, m := range spec.Maps {
		variable, found, err := variableOf(m)
		if err != nil {
			return nil, err
		}
		if !found {
			continue
		}
		name := strings.TrimPrefix(variable.Type.TypeName(), variablePrefix)
		m.Name, m.Flags, m.Contents = name, unix.BPF_F_MMAPABLE, nil // which is all zeros
		// What else lies in the section is there for Go's types, and not the same in each program.
		m.ValueSize, m.Key, m.Value = variable.Size, nil, nil
		delete(spec.Maps, section)
		spec.Maps[name] = m
		for _, program := range spec.Programs {
			rename(program, section, name)
		}
	}
	return spec, nil
}

// variableOf finds such a variable: a map that is a section begins with it.
func variableOf(m *ebpf.MapSpec) (variable btf.VarSecinfo, found bool, err error) {
	section, ok := m.Value.(*btf.Datasec)
	if !ok {
		return variable, false, nil
	}
	for _, v := range section.Vars {
		if !strings.HasPrefix(v.Type.TypeName(), variablePrefix) {
			continue
		}
		if v.Offset != 0 {
			err = fmt.Errorf("section %s does not begin with %s", section.Name, v.Type.TypeName())
		}
		return v, err == nil, err
	}
	return variable, false, nil
}

// rename makes a program use the map by its other name.
func rename(program *ebpf.ProgramSpec, from, to string) {
	for i, instruction := range program.Instructions {
		if instruction.Reference() == from {
			program.Instructions[i] = instruction.WithReference(to)
		}
	}
}
