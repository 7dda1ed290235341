package lvs

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A ConnectionFilter says which entries of the connection table are meant: those
// of which everything holds. Its zero value means all of them.
type ConnectionFilter struct {
	Protocol Protocol // 0: any
	Client   Endpoint
	Virtual  Endpoint
	Server   Endpoint
	States   []ConnectionState // none: any
	Kind     ConnectionKind
	// IdleAtLeast leaves out what had a packet more recently; it leaves out all
	// templates. ExpiresWithin leaves out what lives longer. 0: any.
	IdleAtLeast   time.Duration
	ExpiresWithin time.Duration
	// Limit is how many are told of at most; 0: all.
	Limit int
}

// A ConnectionKind tells connections from templates of persistence.
type ConnectionKind uint8

// The kinds. AnyKind is both.
const (
	AnyKind ConnectionKind = iota
	OnlyConnections
	OnlyTemplates
)

// A ConnectionMatcher is a filter, made ready for a whole table.
type ConnectionMatcher struct {
	filter   ConnectionFilter
	anyState bool
	states   [256]bool
}

// Matcher returns what tells the connections that pass the filter. It does not
// count them.
func (f ConnectionFilter) Matcher() *ConnectionMatcher {
	m := &ConnectionMatcher{filter: f, anyState: len(f.States) == 0}
	for _, s := range f.States {
		m.states[s] = true
	}
	return m
}

// Matches reports whether a connection passes the filter.
func (m *ConnectionMatcher) Matches(c *Connection) bool {
	f := &m.filter
	switch {
	case f.Kind == OnlyConnections && c.Template, f.Kind == OnlyTemplates && !c.Template:
		return false
	case f.Protocol != 0 && c.Protocol != f.Protocol, !m.anyState && !m.states[c.State]:
		return false
	case f.IdleAtLeast > 0 && (c.Template || c.Idle < f.IdleAtLeast):
		return false
	case f.ExpiresWithin > 0 && c.Expires > f.ExpiresWithin:
		return false
	}
	return f.Client.Contains(c.Client) && f.Virtual.Contains(c.Virtual) && f.Server.Contains(c.Server)
}

// Contains reports whether the endpoint picks an address and its port.
func (e Endpoint) Contains(addr netip.AddrPort) bool {
	return (e.Port == 0 || e.Port == addr.Port()) && (!e.Prefix.IsValid() || e.Prefix.Contains(addr.Addr()))
}

// ConnectionStatesNamed returns the states of that name, of all protocols, or an
// error that wraps ErrInvalid.
func ConnectionStatesNamed(name string) ([]ConnectionState, error) {
	name = strings.ToUpper(name)
	if name == StateAssured.String() {
		return []ConnectionState{StateAssured}, nil
	}
	var states []ConnectionState
	for s, known := range stateNames {
		if known == name && name != "" {
			states = append(states, ConnectionState(s))
		}
	}
	if len(states) == 0 {
		return nil, fmt.Errorf("state %q: %w: want one that ipvsadm -Lc names, like ESTABLISHED, FIN_WAIT, UDP or ASSURED", name, ErrInvalid)
	}
	return states, nil
}

// A ConnectionField is one by which connections can be counted.
type ConnectionField string

// The fields. A service is protocol, VIP and port at once; a kind is "connection"
// or "template".
const (
	FieldProtocol   ConnectionField = "protocol"
	FieldClient     ConnectionField = "client"
	FieldClientPort ConnectionField = "client-port"
	FieldService    ConnectionField = "service"
	FieldVIP        ConnectionField = "vip"
	FieldPort       ConnectionField = "port"
	FieldServer     ConnectionField = "server"
	FieldState      ConnectionField = "state"
	FieldKind       ConnectionField = "kind"
)

// keep copies what of a connection makes its group by a field.
func (field ConnectionField) keep(to, c *Connection) {
	switch field {
	case FieldProtocol:
		to.Protocol = c.Protocol
	case FieldClient:
		to.Client = netip.AddrPortFrom(c.Client.Addr(), to.Client.Port())
	case FieldClientPort:
		to.Client = netip.AddrPortFrom(to.Client.Addr(), c.Client.Port())
	case FieldService:
		to.Protocol, to.Virtual = c.Protocol, c.Virtual
	case FieldVIP:
		to.Virtual = netip.AddrPortFrom(c.Virtual.Addr(), to.Virtual.Port())
	case FieldPort:
		to.Virtual = netip.AddrPortFrom(to.Virtual.Addr(), c.Virtual.Port())
	case FieldServer:
		to.Server = c.Server
	case FieldState:
		to.State = c.State
	case FieldKind:
		to.Template = c.Template
	}
}

// Of returns the value that a connection has in the field, as a person reads it,
// "" for a field that is not known.
func (field ConnectionField) Of(c *Connection) string {
	switch field {
	case FieldProtocol:
		return c.Protocol.String()
	case FieldClient:
		return c.Client.Addr().String()
	case FieldClientPort:
		return strconv.Itoa(int(c.Client.Port()))
	case FieldService:
		return c.Protocol.String() + " " + c.Virtual.String()
	case FieldVIP:
		return c.Virtual.Addr().String()
	case FieldPort:
		return strconv.Itoa(int(c.Virtual.Port()))
	case FieldServer:
		return c.Server.String()
	case FieldState:
		return c.State.String()
	case FieldKind:
		if c.Template {
			return "template"
		}
		return "connection"
	}
	return ""
}

// ParseConnectionField reads the name of a field. It wraps ErrInvalid.
func ParseConnectionField(name string) (ConnectionField, error) {
	field := ConnectionField(name)
	if field.Of(&Connection{}) == "" {
		return "", fmt.Errorf("field %q: %w: want protocol, client, client-port, service, vip, port, server, state or kind", name, ErrInvalid)
	}
	return field, nil
}

// A ConnectionTotal is how many connections there are, and what they have carried
// so far.
type ConnectionTotal struct {
	Connections uint64
	Packets     uint64 // those of each connection modulo 2^32
	Bytes       uint64
}

// A ConnectionGroup is the total of connections that have the same values in the
// fields that were asked for, in their order.
type ConnectionGroup struct {
	Values []string
	ConnectionTotal
}

// A ConnectionCount is the total of the connections that a filter picks, and of
// each group of them, the largest first. Omitted is how many groups there are
// beyond the filter's limit.
type ConnectionCount struct {
	ConnectionTotal
	Groups  []ConnectionGroup
	Omitted int
}

// MaxConnectionGroups bounds the memory that counting takes.
const MaxConnectionGroups = 1 << 20

// A ConnectionCounter counts connections by fields.
type ConnectionCounter struct {
	by     []ConnectionField
	total  ConnectionTotal
	groups map[Connection]*ConnectionTotal
	most   int // groups
}

// NewConnectionCounter returns a counter by these fields; without any there are no
// groups. It wraps ErrInvalid for a field that is not known.
func NewConnectionCounter(by []ConnectionField) (*ConnectionCounter, error) {
	for _, field := range by {
		if _, err := ParseConnectionField(string(field)); err != nil {
			return nil, err
		}
	}
	return &ConnectionCounter{by: by, groups: map[Connection]*ConnectionTotal{}, most: MaxConnectionGroups}, nil
}

// Add counts one connection. It returns an error that wraps ErrRange when there
// are more than MaxConnectionGroups groups.
func (n *ConnectionCounter) Add(c *Connection) error {
	n.total.add(c)
	if len(n.by) == 0 {
		return nil
	}
	var group Connection
	for _, field := range n.by {
		field.keep(&group, c)
	}
	total := n.groups[group]
	if total == nil {
		if len(n.groups) == n.most {
			return fmt.Errorf("count connections by %v: %w: more than %d groups; filter them, or count by something coarser",
				n.by, ErrRange, n.most)
		}
		total = &ConnectionTotal{}
		n.groups[group] = total
	}
	total.add(c)
	return nil
}

func (t *ConnectionTotal) add(c *Connection) {
	t.Connections++
	t.Packets += uint64(c.Packets)
	t.Bytes += c.Bytes
}

// Count returns what was counted, at most limit groups; 0: all.
func (n *ConnectionCounter) Count(limit int) ConnectionCount {
	type counted struct {
		group Connection
		*ConnectionTotal
	}
	all := make([]counted, 0, len(n.groups))
	for group, total := range n.groups {
		all = append(all, counted{group, total})
	}
	slices.SortFunc(all, func(a, b counted) int {
		return cmp.Or(
			cmp.Compare(b.Connections, a.Connections),
			cmp.Compare(a.group.Protocol, b.group.Protocol),
			a.group.Virtual.Compare(b.group.Virtual),
			a.group.Server.Compare(b.group.Server),
			a.group.Client.Compare(b.group.Client),
			cmp.Compare(a.group.State, b.group.State),
		)
	})
	count := ConnectionCount{ConnectionTotal: n.total}
	if limit > 0 && len(all) > limit {
		count.Omitted = len(all) - limit
		all = all[:limit]
	}
	for _, one := range all {
		group := ConnectionGroup{ConnectionTotal: *one.ConnectionTotal}
		for _, field := range n.by {
			group.Values = append(group.Values, field.Of(&one.group))
		}
		count.Groups = append(count.Groups, group)
	}
	return count
}
