/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded into the genuine ipvsadm by the tests: its netlink sockets become
 * connections to the sequenced-packet socket that $KERNEL names, where the test
 * answers as the kernel would. /proc/net/ip_vs_conn becomes the file that
 * $IP_VS_CONN names. Names are resolved by the table in $HOSTS, one
 * "ADDRESS NAME" a line, so that no test asks a real name server.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <linux/netlink.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int socket(int domain, int type, int protocol)
{
	int (*next)(int, int, int) = dlsym(RTLD_NEXT, "socket");
	struct sockaddr_un kernel = { .sun_family = AF_UNIX };
	int fd;

	if (domain != AF_NETLINK)
		return next(domain, type, protocol);
	fd = next(AF_UNIX, SOCK_SEQPACKET, 0);
	strncpy(kernel.sun_path, getenv("KERNEL"), sizeof(kernel.sun_path) - 1);
	if (connect(fd, (struct sockaddr *)&kernel, sizeof(kernel)))
		perror("connect to $KERNEL");
	return fd;
}

int bind(int fd, const struct sockaddr *addr, socklen_t len)
{
	(void)fd, (void)addr, (void)len;
	return 0;
}

int setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
	(void)fd, (void)level, (void)name, (void)value, (void)len;
	return 0;
}

int getsockname(int fd, struct sockaddr *addr, socklen_t *len)
{
	struct sockaddr_nl nl = { .nl_family = AF_NETLINK, .nl_pid = 1 };

	(void)fd;
	memcpy(addr, &nl, sizeof(nl));
	*len = sizeof(nl);
	return 0;
}

ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	ssize_t (*next)(int, const struct msghdr *, int) = dlsym(RTLD_NEXT, "sendmsg");
	struct msghdr plain = *msg;

	plain.msg_name = NULL;
	plain.msg_namelen = 0;
	plain.msg_control = NULL;
	plain.msg_controllen = 0;
	return next(fd, &plain, flags);
}

ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
	ssize_t (*next)(int, struct msghdr *, int) = dlsym(RTLD_NEXT, "recvmsg");
	struct sockaddr_nl nl = { .nl_family = AF_NETLINK };
	void *name = msg->msg_name;
	ssize_t n;

	msg->msg_name = NULL;
	msg->msg_namelen = 0;
	n = next(fd, msg, flags);
	msg->msg_name = name;
	if (name) {
		memcpy(name, &nl, sizeof(nl));
		msg->msg_namelen = sizeof(nl);
	}
	return n;
}

FILE *fopen(const char *path, const char *mode)
{
	FILE *(*next)(const char *, const char *) = dlsym(RTLD_NEXT, "fopen");

	if (!strcmp(path, "/proc/net/ip_vs_conn"))
		path = getenv("IP_VS_CONN");
	return next(path, mode);
}

/* Finds the line of $HOSTS whose address or name is the one given. */
static int find_host(const char *address, const char *name, char *found_address, char *found_name)
{
	const char *line = getenv("HOSTS");
	int n;

	while (line && sscanf(line, "%63s %255s%n", found_address, found_name, &n) == 2) {
		if ((address && !strcmp(address, found_address)) || (name && !strcmp(name, found_name)))
			return 1;
		line += n;
	}
	return 0;
}

struct hostent *gethostbyaddr(const void *addr, socklen_t len, int type)
{
	static char address[64], name[256];
	static struct hostent entry;
	char wanted[64];

	(void)len;
	inet_ntop(type, addr, wanted, sizeof(wanted));
	if (!find_host(wanted, NULL, address, name))
		return NULL;
	entry.h_name = name;
	return &entry;
}

struct hostent *gethostbyname(const char *wanted)
{
	static char address[64], name[256];
	static struct in_addr in;
	static char *list[2] = { (char *)&in, NULL };
	static struct hostent entry;

	if (!find_host(NULL, wanted, address, name) || !inet_aton(address, &in))
		return NULL;
	entry.h_name = name;
	entry.h_addrtype = AF_INET;
	entry.h_length = sizeof(in);
	entry.h_addr_list = list;
	return &entry;
}
