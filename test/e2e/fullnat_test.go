package e2e

import (
	"net/netip"
	"sync"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/fairlead-lb/fairlead/internal/journey"
	"github.com/fairlead-lb/fairlead/internal/lab"
)

// A real server that is added with --toa gets its clients' own addresses in a TCP option, of
// segments that its kernel takes: with the SYN and with what completes the handshake.
func TestFullNATTellsClients(t *testing.T) {
	l := mustUpAs(t, lab.Config{Name: "toa", Directory: labDirectory(t), Servers: 1, Method: lab.FullNAT})
	server := l.Servers()[0]
	for _, family := range []lab.Family{lab.IPv4, lab.IPv6} {
		web := service(family, lab.HTTPPort)
		at := netip.AddrPortFrom(server.Address(family), lab.FullNAT.ServerPort(lab.HTTPPort))
		mustOutput(t, l, lab.Director, "ipvsadm", "-A", "-t", web.String(), "-s", "rr")
		mustOutput(t, l, lab.Director, "ipvsadm", "-a", "-t", web.String(), "-r", at.String(), "--fullnat", "--toa")

		var told toldClients
		capture, err := l.Capture(0, func(frame journey.Frame) {
			if frame.Host == server.Name && frame.Direction == journey.In {
				told.add(frame.Data)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		answer, err := l.Get(t.Context(), web)
		if _, lost := capture.Stop(); err != nil || lost != nil {
			t.Fatal(err, lost)
		}
		if answer.ClientAtServer.Addr() != family.LocalAddress() {
			t.Errorf("IPv%d: the real server has its client at %s", family, answer.ClientAtServer)
		}
		told.check(t, answer.Client)
	}
}

// toldClients are the ends of clients that segments to a real server tell.
type toldClients struct {
	sync.Mutex
	bySYN, byACK netip.AddrPort
	later        int // segments with the option that are neither
}

// add reads the option of a segment (toa.h).
func (c *toldClients) add(frame []byte) {
	packet := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	tcp, ok := packet.Layer(layers.LayerTypeTCP).(*layers.TCP)
	if !ok {
		return
	}
	c.Lock()
	defer c.Unlock()
	for _, option := range tcp.Options {
		addr, ok := netip.AddrFromSlice(option.OptionData[min(2, len(option.OptionData)):])
		if !ok || option.OptionType != 254 && option.OptionType != 253 {
			continue
		}
		client := netip.AddrPortFrom(addr, uint16(option.OptionData[0])<<8|uint16(option.OptionData[1]))
		switch {
		case tcp.SYN:
			c.bySYN = client
		case !c.byACK.IsValid():
			c.byACK = client
		default:
			c.later++
		}
	}
}

// check wants the client in the SYN and in what acknowledges the server's; more than the
// request may do that, but not the whole connection.
func (c *toldClients) check(t *testing.T, client netip.AddrPort) {
	t.Helper()
	c.Lock()
	defer c.Unlock()
	if c.bySYN != client || c.byACK != client || c.later > 1 {
		t.Errorf("the SYN told %s, the ACK %s, %d segments more did; want %s in the first two", c.bySYN, c.byACK, c.later, client)
	}
}
