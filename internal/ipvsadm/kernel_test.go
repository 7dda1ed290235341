package ipvsadm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A kernelSide speaks generic netlink as the kernel's IPVS does
// (include/uapi/linux/ip_vs.h), and acts on a Director: the genuine ipvsadm
// works on it as on a kernel.
type kernelSide struct{ director Director }

const ipvsFamily = 30

// The commands and attributes of include/uapi/linux/ip_vs.h.
const (
	nlNewService = 1 + iota
	nlSetService
	nlDelService
	nlGetService
	nlNewDest
	nlSetDest
	nlDelDest
	nlGetDest
	nlNewDaemon
	nlDelDaemon
	nlGetDaemon
	nlSetConfig
	nlGetConfig
	nlSetInfo
	nlGetInfo
	nlZero
	nlFlush
)

const (
	attrService, attrDest                          = 1, 2
	attrTimeoutTCP, attrTimeoutFin, attrTimeoutUDP = 4, 5, 6

	svcFamily, svcProtocol, svcAddress, svcPort, svcMark = 1, 2, 3, 4, 5
	svcScheduler, svcFlags, svcTimeout, svcNetmask       = 6, 7, 8, 9
	svcStats, svcEngine, svcStats64                      = 10, 11, 12

	destAddress, destPort, destMethod, destWeight = 1, 2, 3, 4
	destUpper, destLower, destActive              = 5, 6, 7
	destInactive, destPersistent, destStats       = 8, 9, 10
	destFamily, destStats64                       = 11, 12
	destTunType, destTunPort, destTunFlags        = 13, 14, 15

	flagPersistent, flagOnePacket = 1, 4
)

var errnos = []struct {
	err   error
	errno unix.Errno
}{
	{lvs.ErrServiceExists, unix.EEXIST},
	{lvs.ErrServerExists, unix.EEXIST},
	{lvs.ErrNoService, unix.ESRCH},
	{lvs.ErrNoServer, unix.ENOENT},
	{lvs.ErrSchedulerNotFound, unix.ENOENT},
	{lvs.ErrInvalid, unix.EINVAL},
	{lvs.ErrRange, unix.ERANGE},
	{lvs.ErrTableFull, unix.ENOMEM},
}

// attr returns one netlink attribute.
func attr(kind uint16, value []byte) []byte {
	out := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	out = binary.NativeEndian.AppendUint16(out, kind)
	out = append(out, value...)
	return append(out, make([]byte, -len(value)&3)...)
}

func attr16(kind, value uint16) []byte {
	return attr(kind, binary.NativeEndian.AppendUint16(nil, value))
}

func attr32(kind uint16, value uint32) []byte {
	return attr(kind, binary.NativeEndian.AppendUint32(nil, value))
}

func attr64(kind uint16, value uint64) []byte {
	return attr(kind, binary.NativeEndian.AppendUint64(nil, value))
}

func attrPort(kind, port uint16) []byte {
	return attr(kind, binary.BigEndian.AppendUint16(nil, port))
}

// attrs are the attributes of one level, by their kind.
type attrs map[uint16][]byte

func parseAttrs(b []byte) attrs {
	out := attrs{}
	for len(b) >= 4 {
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) {
			break
		}
		out[binary.NativeEndian.Uint16(b[2:])&0x3fff] = b[4:n]
		b = b[min(len(b), (n+3)&^3):]
	}
	return out
}

func (a attrs) u32(kind uint16) uint32 {
	v := a[kind]
	switch len(v) {
	case 1:
		return uint32(v[0])
	case 2:
		return uint32(binary.NativeEndian.Uint16(v))
	case 4, 8:
		return binary.NativeEndian.Uint32(v)
	}
	return 0
}

func (a attrs) port(kind uint16) uint16 { return binary.BigEndian.Uint16(append(a[kind], 0, 0)) }

func (a attrs) text(kind uint16) string {
	text, _, _ := bytes.Cut(a[kind], []byte{0})
	return string(text)
}

func (a attrs) address(kind uint16, family uint32) netip.Addr {
	b := a[kind]
	if family == unix.AF_INET6 && len(b) >= 16 {
		return netip.AddrFrom16([16]byte(b[:16]))
	}
	if len(b) >= 4 {
		return netip.AddrFrom4([4]byte(b[:4]))
	}
	return netip.Addr{}
}

func family(addr netip.Addr) uint16 {
	if addr.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func attrAddress(kind uint16, addr netip.Addr) []byte {
	b := make([]byte, 16)
	copy(b, addr.AsSlice())
	return attr(kind, b)
}

func (a attrs) key() lvs.ServiceKey {
	if mark := a.u32(svcMark); mark != 0 {
		return lvs.MarkKey(mark, a.u32(svcFamily) == unix.AF_INET6)
	}
	return lvs.ServiceKey{
		Protocol: lvs.Protocol(a.u32(svcProtocol)),
		Address:  a.address(svcAddress, a.u32(svcFamily)),
		Port:     a.port(svcPort),
	}
}

func (a attrs) service() lvs.Service {
	flags := a.u32(svcFlags)
	svc := lvs.Service{
		ServiceKey:        a.key(),
		Scheduler:         lvs.Scheduler(a.text(svcScheduler)),
		SchedulerFlags:    lvs.SchedulerFlags(flags >> 3 & 7),
		PersistenceEngine: a.text(svcEngine),
		OnePacket:         flags&flagOnePacket != 0,
	}
	if flags&flagPersistent != 0 {
		svc.PersistenceTimeout = time.Duration(a.u32(svcTimeout)) * time.Second
		svc.PersistenceMask = a.u32(svcNetmask)
		if svc.Address.Is4() {
			svc.PersistenceMask = binary.BigEndian.Uint32(a[svcNetmask])
		}
	}
	return svc
}

func (a attrs) server() lvs.RealServer {
	rs := lvs.RealServer{
		RealServerKey:  lvs.RealServerKey{Address: a.address(destAddress, a.u32(destFamily)), Port: a.port(destPort)},
		Method:         lvs.ForwardingMethod(a.u32(destMethod) & 7),
		Weight:         a.u32(destWeight),
		UpperThreshold: a.u32(destUpper),
		LowerThreshold: a.u32(destLower),
	}
	if rs.Method == lvs.Tunnelling {
		rs.Tunnel = lvs.Tunnel{
			Type:     lvs.TunnelType(a.u32(destTunType)),
			Port:     a.port(destTunPort),
			Checksum: lvs.TunnelChecksum(a.u32(destTunFlags)),
		}
	}
	return rs
}

func attrStats(kind uint16, c lvs.Counters, r lvs.Rates) []byte {
	var out []byte
	for i, v := range []uint64{
		c.Connections, c.InPackets, c.OutPackets, c.InBytes, c.OutBytes,
		r.Connections, r.InPackets, r.OutPackets, r.InBytes, r.OutBytes,
	} {
		out = append(out, attr64(uint16(i+1), v)...)
	}
	return attr(kind, out)
}

func attrKey(key lvs.ServiceKey) []byte {
	out := attr16(svcFamily, family(key.Address))
	if key.Mark != 0 {
		return append(out, attr32(svcMark, key.Mark)...)
	}
	out = append(out, attr16(svcProtocol, uint16(key.Protocol))...)
	out = append(out, attrAddress(svcAddress, key.Address)...)
	return append(out, attrPort(svcPort, key.Port)...)
}

func attrServiceStatus(s lvs.ServiceStatus) []byte {
	flags, mask := uint32(s.SchedulerFlags)<<3, lvs.FullPersistenceMask(s.Address)
	if s.OnePacket {
		flags |= flagOnePacket
	}
	if s.PersistenceTimeout != 0 {
		flags |= flagPersistent
		mask = s.PersistenceMask
	}
	out := attrKey(s.ServiceKey)
	out = append(out, attr(svcScheduler, append([]byte(s.Scheduler), 0))...)
	if s.PersistenceEngine != "" {
		out = append(out, attr(svcEngine, append([]byte(s.PersistenceEngine), 0))...)
	}
	out = append(out, attr(svcFlags, binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, flags), ^uint32(0)))...)
	out = append(out, attr32(svcTimeout, uint32(s.PersistenceTimeout/time.Second))...)
	if s.Address.Is4() {
		out = append(out, attr(svcNetmask, binary.BigEndian.AppendUint32(nil, mask))...)
	} else {
		out = append(out, attr32(svcNetmask, mask)...)
	}
	out = append(out, attrStats(svcStats64, s.Counters, s.Rates)...)
	return attr(attrService, out)
}

func attrServerStatus(s lvs.RealServerStatus) []byte {
	out := attr16(destFamily, family(s.Address))
	out = append(out, attrAddress(destAddress, s.Address)...)
	out = append(out, attrPort(destPort, s.Port)...)
	out = append(out, attr32(destMethod, uint32(s.Method))...)
	out = append(out, attr32(destWeight, s.Weight)...)
	out = append(out, attr32(destUpper, s.UpperThreshold)...)
	out = append(out, attr32(destLower, s.LowerThreshold)...)
	out = append(out, attr32(destActive, s.Active)...)
	out = append(out, attr32(destInactive, s.Inactive)...)
	out = append(out, attr32(destPersistent, s.Persistent)...)
	out = append(out, attr(destTunType, []byte{byte(s.Tunnel.Type)})...)
	out = append(out, attrPort(destTunPort, s.Tunnel.Port)...)
	out = append(out, attr16(destTunFlags, uint16(s.Tunnel.Checksum))...)
	out = append(out, attrStats(destStats64, s.Counters, s.Rates)...)
	return attr(attrDest, out)
}

// serve answers the requests of one connection until the other side ends it.
func (k kernelSide) serve(ctx context.Context, conn net.Conn) error {
	defer conn.Close()
	request := make([]byte, 1<<16)
	for {
		n, err := conn.Read(request)
		if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || (err == nil && n == 0) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read netlink request: %w", err)
		}
		for _, reply := range k.answer(ctx, request[:n]) {
			// A tool that has seen enough does not wait for the rest.
			if _, err := conn.Write(reply); err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
				return fmt.Errorf("write netlink reply: %w", err)
			}
		}
	}
}

// answer returns the datagrams that answer one request.
func (k kernelSide) answer(ctx context.Context, request []byte) [][]byte {
	kind, flags := binary.NativeEndian.Uint16(request[4:]), binary.NativeEndian.Uint16(request[6:])
	message := func(kind, flags uint16, body []byte) []byte {
		out := binary.NativeEndian.AppendUint32(nil, uint32(16+len(body)))
		out = binary.NativeEndian.AppendUint16(out, kind)
		out = binary.NativeEndian.AppendUint16(out, flags)
		out = append(out, request[8:16]...)
		return append(out, body...)
	}
	result := func(errno unix.Errno) []byte {
		body := binary.NativeEndian.AppendUint32(nil, uint32(-int32(errno)))
		return message(unix.NLMSG_ERROR, 0, append(body, request[:16]...))
	}
	if kind == unix.GENL_ID_CTRL {
		body := append([]byte{unix.CTRL_CMD_NEWFAMILY, 2, 0, 0}, attr16(unix.CTRL_ATTR_FAMILY_ID, ipvsFamily)...)
		body = append(body, attr(unix.CTRL_ATTR_FAMILY_NAME, []byte("IPVS\x00"))...)
		return [][]byte{message(kind, 0, body), result(0)}
	}
	dump := flags&unix.NLM_F_DUMP == unix.NLM_F_DUMP
	replyFlags := uint16(0)
	if dump {
		replyFlags = unix.NLM_F_MULTI
	}
	payloads, err := k.act(ctx, request[16], dump, parseAttrs(request[20:]))
	var replies [][]byte
	for _, p := range payloads {
		replies = append(replies, message(ipvsFamily, replyFlags, append([]byte{request[16], 1, 0, 0}, p...)))
	}
	switch {
	case err != nil:
		errno := unix.EIO
		for _, e := range errnos {
			if errors.Is(err, e.err) {
				errno = e.errno
			}
		}
		return append(replies, result(errno))
	case dump:
		return append(replies, message(unix.NLMSG_DONE, unix.NLM_F_MULTI, make([]byte, 4)))
	}
	return append(replies, result(0))
}

// act carries out one command and returns the payloads of its replies.
func (k kernelSide) act(ctx context.Context, command byte, dump bool, a attrs) ([][]byte, error) {
	d := k.director
	svc, dest := parseAttrs(a[attrService]), parseAttrs(a[attrDest])
	key := svc.key()
	switch command {
	case nlNewService:
		return nil, d.AddService(ctx, svc.service())
	case nlSetService:
		return nil, d.EditService(ctx, svc.service())
	case nlDelService:
		return nil, d.DeleteService(ctx, key)
	case nlGetService:
		if dump {
			all, err := d.Services(ctx)
			var out [][]byte
			for _, s := range all {
				out = append(out, attrServiceStatus(s))
			}
			return out, err
		}
		s, err := d.Service(ctx, key)
		if err != nil {
			return nil, err
		}
		return [][]byte{attrServiceStatus(s)}, nil
	case nlNewDest:
		return nil, d.AddServer(ctx, key, dest.server())
	case nlSetDest:
		return nil, d.EditServer(ctx, key, dest.server())
	case nlDelDest:
		return nil, d.DeleteServer(ctx, key, dest.server().RealServerKey)
	case nlGetDest:
		s, err := d.Service(ctx, key)
		var out [][]byte
		for _, rs := range s.Servers {
			out = append(out, attrServerStatus(rs))
		}
		return out, err
	case nlGetDaemon:
		return nil, nil
	case nlSetConfig:
		return nil, d.SetTimeouts(ctx, lvs.Timeouts{
			TCP:    time.Duration(a.u32(attrTimeoutTCP)) * time.Second,
			TCPFin: time.Duration(a.u32(attrTimeoutFin)) * time.Second,
			UDP:    time.Duration(a.u32(attrTimeoutUDP)) * time.Second,
		})
	case nlGetConfig:
		t, err := d.Timeouts(ctx)
		body := attr32(attrTimeoutTCP, uint32(t.TCP/time.Second))
		body = append(body, attr32(attrTimeoutFin, uint32(t.TCPFin/time.Second))...)
		body = append(body, attr32(attrTimeoutUDP, uint32(t.UDP/time.Second))...)
		return [][]byte{body}, err
	case nlGetInfo:
		// The tool asks for it first of all, before it reads its arguments.
		return [][]byte{append(attr32(1, 1<<16|2<<8|1), attr32(2, 4096)...)}, nil
	case nlZero:
		if a[attrService] == nil {
			return nil, d.Zero(ctx)
		}
		return nil, d.ZeroService(ctx, key)
	case nlFlush:
		return nil, d.Clear(ctx)
	}
	return nil, lvs.ErrUnsupported
}
