package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairlead-lb/fairlead/internal/api"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

func newMarkCommand(env Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "mark",
		Short: "Say which packets carry a firewall mark",
		Long: `The virtual service of a firewall mark (ipvsadm -A -f MARK) takes packets of several
addresses, ports or protocols as one. Netfilter comes after XDP, so the mark that an
iptables or nftables rule sets is not there yet: rules here say which packets carry
which mark.

Rules are looked at in their order, and the first that fits counts. They are looked at
for packets without a connection: those of a connection stay with its real server.
They survive a restart of the director, and fairlead save has them.`,
		Example: `  fairlead mark add 7 --protocol tcp --vip 192.0.2.100 --port 80-8080
  fairlead ipvsadm -A -f 7 -s rr
  fairlead mark list
  fairlead mark remove 1`,
		Args: cobra.NoArgs,
	}
	cmd.AddCommand(newMarkAddCommand(env), newMarkRemoveCommand(env), newMarkListCommand(env))
	return cmd
}

// markFlags are the options that say which packets a rule is of.
type markFlags struct{ protocol, client, clientPort, vip, port string }

func (f *markFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.protocol, "protocol", "any", "tcp, udp, sctp or any")
	flags.StringVar(&f.client, "client", "any", "`ADDR[/LEN]` that the packet comes from")
	flags.StringVar(&f.clientPort, "client-port", "any", "`N[-M]`, the port or ports that it comes from")
	flags.StringVar(&f.vip, "vip", "any", "`ADDR[/LEN]` that the packet is for")
	flags.StringVar(&f.port, "port", "any", "`N[-M]`, the port or ports that it is for")
}

// given reports whether one of the options stands on the command line.
func (f *markFlags) given(cmd *cobra.Command) bool {
	return slices.ContainsFunc([]string{"protocol", "client", "client-port", "vip", "port"}, cmd.Flags().Changed)
}

// rule returns the rule that gives the packets of the options a mark.
func (f *markFlags) rule(mark string) (rule lvs.MarkRule, err error) {
	if rule.Mark, err = parseMark(mark); err != nil {
		return rule, err
	}
	if rule.Protocol, err = parseMarkProtocol(f.protocol); err != nil {
		return rule, err
	}
	if rule.Source, err = parseMarkPrefix("client", f.client); err != nil {
		return rule, err
	}
	if rule.Destination, err = parseMarkPrefix("vip", f.vip); err != nil {
		return rule, err
	}
	if rule.SourcePorts, err = lvs.ParsePortRange(f.clientPort); err != nil {
		return rule, fmt.Errorf("--client-port: %w", err)
	}
	if rule.DestinationPorts, err = lvs.ParsePortRange(f.port); err != nil {
		return rule, fmt.Errorf("--port: %w", err)
	}
	if err := rule.Check(); err != nil {
		return rule, fmt.Errorf("mark rule: %w", err)
	}
	return rule, nil
}

func newMarkAddCommand(env Env) *cobra.Command {
	var director directorFlags
	var packets markFlags
	var position int
	cmd := &cobra.Command{
		Use:   "add MARK",
		Short: "Let packets carry a mark; what no option names is any",
		Example: `  fairlead mark add 7 --protocol tcp --vip 192.0.2.100 --port 80-8080
  fairlead mark add 7 --vip 2001:db8::100 --port 443
  fairlead mark add 8 --client 198.51.100.0/24 --at 1`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			rule, err := packets.rule(args[0])
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("at") && position < 1 {
				return fmt.Errorf("--at %d: want 1, before all other rules, or a later position; without --at it is the last", position)
			}
			return director.speak(func(client *api.Client) error {
				return client.AddMarkRule(cmd.Context(), rule, position)
			})
		},
	}
	director.add(cmd, env)
	packets.add(cmd)
	cmd.Flags().IntVar(&position, "at", 0, "`position` among the rules, 1 before all others (default: the last)")
	return cmd
}

// parseMark reads a mark as ipvsadm does: decimal, or hexadecimal after 0x.
func parseMark(text string) (uint32, error) {
	digits, isHex := strings.CutPrefix(text, "0x")
	base := 10
	if isHex {
		base = 16
	}
	n, err := strconv.ParseUint(digits, base, 32)
	switch {
	case err != nil:
		return 0, fmt.Errorf("MARK %q: want a firewall mark, 1 to %d", text, uint32(math.MaxUint32))
	case n == 0:
		return 0, fmt.Errorf("MARK 0: it is what a packet without a mark has: want 1 to %d", uint32(math.MaxUint32))
	}
	return uint32(n), nil
}

func parseMarkProtocol(text string) (lvs.Protocol, error) {
	for _, p := range []lvs.Protocol{0, lvs.TCP, lvs.UDP, lvs.SCTP} {
		if text == markProtocol(p) {
			return p, nil
		}
	}
	return 0, fmt.Errorf("--protocol %q: want tcp, udp, sctp or any", text)
}

// markProtocol returns what parseMarkProtocol reads.
func markProtocol(p lvs.Protocol) string {
	if p == 0 {
		return "any"
	}
	return strings.ToLower(p.String())
}

// parseMarkPrefix reads a prefix, or an address: a prefix of its whole length.
func parseMarkPrefix(flag, text string) (netip.Prefix, error) {
	if text == "any" {
		return netip.Prefix{}, nil
	}
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("--%s %q: want an address or a prefix, like 192.0.2.100 or 2001:db8::/32, or any", flag, text)
	}
	return prefix, nil
}

// markPrefix returns what parseMarkPrefix reads.
func markPrefix(p netip.Prefix) string {
	switch {
	case p == netip.Prefix{}:
		return "any"
	case p.IsSingleIP():
		return p.Addr().String()
	}
	return p.String()
}

func newMarkRemoveCommand(env Env) *cobra.Command {
	var director directorFlags
	var mark string
	var packets markFlags
	cmd := &cobra.Command{
		Use:   "remove POSITION | remove --mark MARK [OPTION...]",
		Short: "Remove a rule, by its position in fairlead mark list or by what it says",
		Long: `Remove one rule: the one that "fairlead mark list" shows at POSITION, or the one that
"fairlead mark add MARK" made with the same options.`,
		Example: `  fairlead mark list
  fairlead mark remove 2
  fairlead mark remove --mark 7 --protocol tcp --vip 192.0.2.100 --port 80-8080`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			byRule := cmd.Flags().Changed("mark")
			switch {
			case byRule == (len(args) == 1):
				return errors.New("which rule? want either POSITION, as fairlead mark list shows it, or --mark MARK with the options of the rule")
			case !byRule && packets.given(cmd):
				return fmt.Errorf("remove %s: the options of a rule go with --mark MARK, not with a position", args[0])
			}
			return director.speak(func(client *api.Client) error {
				if !byRule {
					return removeMarkRuleAt(cmd.Context(), client, args[0])
				}
				rule, err := packets.rule(mark)
				if err != nil {
					return err
				}
				return client.DeleteMarkRule(cmd.Context(), rule)
			})
		},
	}
	director.add(cmd, env)
	cmd.Flags().StringVar(&mark, "mark", "", "`MARK` that the rule gives")
	packets.add(cmd)
	return cmd
}

func removeMarkRuleAt(ctx context.Context, client *api.Client, given string) error {
	position, err := strconv.Atoi(given)
	if err != nil || position < 1 {
		return fmt.Errorf("POSITION %q: want the number that fairlead mark list shows, from 1", given)
	}
	rules, err := client.MarkRules(ctx)
	if err != nil {
		return err
	}
	if position > len(rules) {
		return fmt.Errorf("remove mark rule %d: %w: there are %d (see fairlead mark list)", position, lvs.ErrNoMarkRule, len(rules))
	}
	return client.DeleteMarkRule(ctx, rules[position-1])
}

func newMarkListCommand(env Env) *cobra.Command {
	return listing(env, &cobra.Command{
		Use:     "list",
		Short:   "List the rules in the order in which they are looked at",
		Example: "  fairlead mark list\n  fairlead mark list -o json",
	}, (*api.Client).MarkRules, printMarkRules, printMarkRulesJSON)
}

func printMarkRules(w io.Writer, rules []lvs.MarkRule) error {
	const columns = "POSITION\tMARK\tPROTOCOL\tCLIENT\tCLIENT-PORT\tVIP\tPORT"
	return printTable(w, rules, "no mark rules: no packet carries a mark", columns, func(i int, r lvs.MarkRule) string {
		return fmt.Sprintf("%d\t%d\t%s\t%s\t%s\t%s\t%s", i+1, r.Mark, markProtocol(r.Protocol),
			markPrefix(r.Source), r.SourcePorts, markPrefix(r.Destination), r.DestinationPorts)
	})
}

// A markRuleJSON has for any the word "any".
type markRuleJSON struct {
	Position   int    `json:"position"`
	Mark       uint32 `json:"mark"`
	Protocol   string `json:"protocol"`
	Client     string `json:"client"`
	ClientPort string `json:"client_port"`
	VIP        string `json:"vip"`
	Port       string `json:"port"`
}

func printMarkRulesJSON(w io.Writer, rules []lvs.MarkRule) error {
	report := struct {
		Rules []markRuleJSON `json:"rules"`
	}{[]markRuleJSON{}}
	for i, r := range rules {
		report.Rules = append(report.Rules, markRuleJSON{
			Position: i + 1, Mark: r.Mark, Protocol: markProtocol(r.Protocol),
			Client: markPrefix(r.Source), ClientPort: r.SourcePorts.String(),
			VIP: markPrefix(r.Destination), Port: r.DestinationPorts.String(),
		})
	}
	return encodeJSON(w, report)
}
