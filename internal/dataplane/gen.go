package dataplane

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -output-suffix "" -type address -type connection -type call_id -type connection_group -type bond_group -type mark_rule -type sweep_part -type connection_state -type control -type limit -type abi -type verdict -type scheduler -type list_slot -type table_line -type cache_key -type cache_entry -type scheduler_flag -type service_key -type service -type policy -type edition -type real_server -type server_state -type server_drain -type server_hop -type next_hop -type tunnel -type tunnel_pair -type tunnel_type -type counters -type interface -type settings -type xdp_mode -type client_hop -type sweep_range -type clock_reading -type datagram -type datagram_set -type party -type held_fragment -type oversized -type resumption -type verdict_count director ../../bpf/director.bpf.c -- -O2 -mcpu=v3 -Wall -Wextra -Werror -Wno-sign-compare -I/usr/include/x86_64-linux-gnu

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -output-suffix "" -type bench_run bench ../../bpf/bench.bpf.c -- -O2 -mcpu=v3 -Wall -Wextra -Werror -Wno-sign-compare -Wno-unused-function -I/usr/include/x86_64-linux-gnu

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -output-suffix "" -type sight -type choice -type connection_flag -type sysctl explain ../../bpf/explain.bpf.c -- -O2 -mcpu=v3 -Wall -Wextra -Werror -Wno-sign-compare -Wno-unused-function -I/usr/include/x86_64-linux-gnu

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -output-suffix "" directorTC ../../bpf/director_tc.bpf.c -- -O2 -mcpu=v3 -Wall -Wextra -Werror -Wno-sign-compare -I/usr/include/x86_64-linux-gnu

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -output-suffix "" -type trace_event -type trace_candidate -type trace_filter -type trace_filter_table -type trace_account -type trace_choice -type trace_limit trace ../../bpf/trace.bpf.c -- -O2 -mcpu=v3 -Wall -Wextra -Werror -Wno-sign-compare -I/usr/include/x86_64-linux-gnu

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -output-suffix "" -type address -type probe_key -type probe probe ../../bpf/probe.bpf.c -- -O2 -mcpu=v3 -Wall -Wextra -Werror -Wno-sign-compare -Wno-unused-function -I/usr/include/x86_64-linux-gnu

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -output-suffix "" -type end_verdict -type end_vip -type end_policy -type tunnel_type realserver ../../bpf/realserver.bpf.c -- -O2 -mcpu=v3 -Wall -Wextra -Werror -Wno-sign-compare -Wno-unused-function -I/usr/include/x86_64-linux-gnu
