package main

import "github.com/fairlead-lb/fairlead/internal/ethtool"

// offloadNothing turns off what a device would do for the kernel, so that frames
// show whole checksums. The device is one of the thread's namespace.
func offloadNothing(device string) error {
	return ethtool.Set(device, 0, ethtool.TxChecksum, ethtool.TSO, ethtool.GSO, ethtool.ScatterGather)
}
