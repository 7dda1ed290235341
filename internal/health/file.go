package health

import (
	"io"
	"os"
	"strconv"
	"strings"
)

// maxFile is how much of a file is read: a number.
const maxFile = 64

// readWeight looks at the check's file.
func (p *prober) readWeight() Result {
	file, err := os.Open(p.check.File.Path)
	if err != nil {
		return failure(FileUnreadable, "%v", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxFile))
	if err != nil {
		return failure(FileUnreadable, "%v", err)
	}
	if !p.check.File.Weight {
		number, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		switch {
		case err != nil:
			return failure(FileUnreadable, "%s: want a whole number, got %s", p.check.File.Path, quote(text))
		case number <= 0:
			return failure(FileDown, "%s says %d", p.check.File.Path, number)
		}
		return success("%d", number)
	}
	weight, err := parseWeight(string(text))
	if err != nil {
		return failure(FileUnreadable, "%s: %v", p.check.File.Path, err)
	}
	result := success("weight %d", weight)
	result.Weight = &weight
	return result
}
