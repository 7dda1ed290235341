package api

import (
	"fmt"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// Lists of the domain to protobuf and back. Of an empty one all return nil.

// each converts the items of a list.
func each[From, To any](list []From, convert func(From) To) []To {
	var converted []To
	for _, item := range list {
		converted = append(converted, convert(item))
	}
	return converted
}

// eachFromWire converts the items of a list up to the first that convert refuses. It tells
// convert where an item stands: "peers[0]", for its refusal to say.
func eachFromWire[Wire, Value any](list string, items []Wire, convert func(at string, item Wire) (Value, error)) ([]Value, error) {
	var converted []Value
	for i, item := range items {
		value, err := convert(fmt.Sprintf("%s[%d]", list, i), item)
		if err != nil {
			return nil, err
		}
		converted = append(converted, value)
	}
	return converted, nil
}

// saying returns a conversion for eachFromWire whose refusals begin with where the item stands.
func saying[Wire, Value any](convert func(Wire) (Value, error)) func(string, Wire) (Value, error) {
	return func(at string, item Wire) (Value, error) {
		value, err := convert(item)
		if err != nil {
			err = fmt.Errorf("%s: %w", at, err)
		}
		return value, err
	}
}

// ofState returns a conversion for eachFromWire whose refusals are an *lvs.ItemError.
func ofState[Wire, Value any](convert func(Wire) (Value, error)) func(string, Wire) (Value, error) {
	return func(at string, item Wire) (Value, error) {
		value, err := convert(item)
		if err != nil {
			err = &lvs.ItemError{Item: at, Err: err}
		}
		return value, err
	}
}
