package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// Peers returns the peers that SetPeer entered, with the MAC address that it was
// given last for each.
func (p *Plane) Peers() (map[netip.Addr]lvs.MAC, error) {
	var (
		addr directorAddress
		mac  uint64
	)
	peers := map[netip.Addr]lvs.MAC{}
	entries := p.maps.Peers.Iterate()
	for entries.Next(&addr, &mac) {
		peers[fromAddress(addr)] = fromMACWord(mac)
	}
	if err := entries.Err(); err != nil {
		return nil, fmt.Errorf("read peers: %w", err)
	}
	return peers, nil
}

// SetPeer remembers a peer, and the MAC address that it is known by, the zero value
// for none, for the plane that takes this one over. It changes nothing for packets.
// It wraps lvs.ErrTableFull.
func (p *Plane) SetPeer(addr netip.Addr, mac lvs.MAC) error {
	if err := p.maps.Peers.Put(toAddress(addr), toMACWord(mac)); err != nil {
		return fmt.Errorf("enter peer %s: %w", addr, tableFull(err))
	}
	return nil
}

// DeletePeer forgets what SetPeer remembered; it is no error if that is nothing.
func (p *Plane) DeletePeer(addr netip.Addr) error {
	err := p.maps.Peers.Delete(toAddress(addr))
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("delete peer %s: %w", addr, err)
	}
	return nil
}

// PeerMACs returns the MAC addresses that AddPeerMAC entered.
func (p *Plane) PeerMACs() ([]lvs.MAC, error) {
	var (
		word uint64
		used uint32
		macs []lvs.MAC
	)
	entries := p.maps.PeerMacs.Iterate()
	for entries.Next(&word, &used) {
		macs = append(macs, fromMACWord(word))
	}
	if err := entries.Err(); err != nil {
		return nil, fmt.Errorf("read MAC addresses of peers: %w", err)
	}
	return macs, nil
}

// AddPeerMAC leaves frames for virtual services that come from that MAC address to
// the host. It wraps lvs.ErrTableFull.
func (p *Plane) AddPeerMAC(mac lvs.MAC) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.maps.PeerMacs.Put(toMACWord(mac), uint32(1)); err != nil {
		return fmt.Errorf("enter MAC address %s of a peer: %w", mac, tableFull(err))
	}
	return p.filterPeers()
}

// DeletePeerMAC ends what AddPeerMAC began; it is no error if it did not.
func (p *Plane) DeletePeerMAC(mac lvs.MAC) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.maps.PeerMacs.Delete(toMACWord(mac))
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("delete MAC address %s of a peer: %w", mac, err)
	}
	return p.filterPeers()
}

// filterPeers tells the data plane which MAC addresses are worth a look-up.
func (p *Plane) filterPeers() error {
	macs, err := p.PeerMACs()
	if err != nil {
		return err
	}
	var filter uint32
	for _, mac := range macs {
		filter |= 1 << (mac[5] % 32)
	}
	atomic.StoreUint32(&p.settings().PeerFilter, filter)
	return nil
}

// tableFull turns the errno of a hash map without room into the domain's error.
func tableFull(err error) error {
	if errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("%w: %w", lvs.ErrTableFull, err)
	}
	return err
}
