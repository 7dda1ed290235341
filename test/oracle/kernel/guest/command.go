package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/fairlead-lb/fairlead/test/oracle/scenario"
)

// A command's standard input, output and error are files in memory: pipes take
// threads, which are slow here.
const (
	inputFile  = "/run/stdin"
	outputFile = "/run/stdout"
	errorFile  = "/run/stderr"
)

// Ipvsadm runs the real one.
func (m *machine) Ipvsadm(args []string, stdin string) (scenario.CommandResult, error) {
	var result scenario.CommandResult
	files, err := openFiles(stdin)
	if err != nil {
		return result, err
	}
	process, err := os.StartProcess("/usr/sbin/ipvsadm", append([]string{"ipvsadm"}, args...), &os.ProcAttr{Files: files})
	if err != nil {
		return result, fmt.Errorf("start ipvsadm: %w", err)
	}
	state, err := process.Wait()
	if err != nil {
		return result, fmt.Errorf("wait for ipvsadm: %w", err)
	}
	result.Status = state.ExitCode()
	if result.Stdout, err = readBack(files[1]); err == nil {
		result.Stderr, err = readBack(files[2])
	}
	if err != nil {
		return result, err
	}
	for _, file := range files {
		if err := file.Close(); err != nil {
			return result, err
		}
	}
	return result, nil
}

func openFiles(stdin string) (files []*os.File, err error) {
	if err := os.WriteFile(inputFile, []byte(stdin), 0o600); err != nil {
		return nil, err
	}
	for _, name := range []string{inputFile, outputFile, errorFile} {
		flags := os.O_RDONLY
		if name != inputFile {
			flags = os.O_RDWR | os.O_CREATE | os.O_TRUNC | os.O_APPEND
		}
		file, err := os.OpenFile(name, flags, 0o600)
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}

// readBack returns what was written to a file.
func readBack(file *os.File) (string, error) {
	var text strings.Builder
	_, err := io.Copy(&text, io.NewSectionReader(file, 0, 1<<30))
	return text.String(), err
}
