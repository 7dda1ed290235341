/*
 * A clock for a user-mode Linux whose time is to pass by itself: it stands still
 * while the guest computes, and jumps to the guest's next timer when the guest has
 * nothing to do. So a guest sleeps for an hour in a moment, and its timers show
 * the same on every run, on a busy host too.
 *
 * User-mode Linux takes its time from the host's C library: clock_gettime() tells
 * it, one POSIX timer interrupts it, and an idle guest waits for that in
 * sigsuspend(). This library, preloaded, stands in for those calls. It gives the
 * guest the same entropy on every run as well. The guest's kernel is not changed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/time.h>
#include <sys/types.h>
#include <time.h>

#define SECOND INT64_C(1000000000)

/* The guest's date when it starts: 2030-01-01. */
#define DATE (1893456000 * SECOND)

/* What a look at the clock adds to it: two looks must differ. */
#define LOOK 20

/* A booting guest waits for interrupts in busy loops. Until its clock shows this
 * (bootEnd in guest/main.go), interrupts come by the host's time, often; later only
 * a guest that is busy for seconds gets one, lest it hang. */
#define BOOT_END (10000 * SECOND)
#define BOOT_TICK (SECOND / 5000)
#define BUSY_TICK (3 * SECOND)

static struct {
	int64_t now;
	int64_t next;     /* when the guest's timer goes off; 0: it is not set */
	int64_t interval; /* 0: once */
} guest = { .now = SECOND };

static struct {
	timer_t timer;
	int64_t tick;     /* what the timer is set to */
	int64_t touched;  /* when the guest last set its timer or was idle */
} host;

/* next_function returns what the C library itself has. */
static void *next_function(const char *name)
{
	return dlsym(RTLD_NEXT, name);
}

static struct timespec to_timespec(int64_t ns)
{
	return (struct timespec){ .tv_sec = ns / SECOND, .tv_nsec = ns % SECOND };
}

static int64_t from_timespec(struct timespec ts)
{
	return ts.tv_sec * SECOND + ts.tv_nsec;
}

static int64_t host_now(void)
{
	static int (*gettime)(clockid_t, struct timespec *);
	struct timespec ts;

	if (!gettime)
		gettime = next_function("clock_gettime");
	gettime(CLOCK_MONOTONIC, &ts);
	return from_timespec(ts);
}

static int64_t wanted_tick(void)
{
	return guest.now < BOOT_END ? BOOT_TICK : BUSY_TICK;
}

/* look is the guest's time. One that has been busy for too long finds its timer
 * gone off. */
static int64_t look(void)
{
	guest.now += LOOK;
	if (guest.next > guest.now && host_now() - host.touched >= wanted_tick())
		guest.now = guest.next;
	return guest.now;
}

static void set_host_timer(void)
{
	static int (*settime)(timer_t, int, const struct itimerspec *, struct itimerspec *);
	struct itimerspec its;

	host.touched = host_now();
	if (host.tick == wanted_tick())
		return;
	host.tick = wanted_tick();
	its.it_value = its.it_interval = to_timespec(host.tick);
	if (!settime)
		settime = next_function("timer_settime");
	settime(host.timer, 0, &its, NULL);
}

int clock_gettime(clockid_t id, struct timespec *ts)
{
	*ts = to_timespec(look() + (id == CLOCK_REALTIME ? DATE : 0));
	return 0;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
	struct timespec ts = to_timespec(look() + DATE);

	(void)zone;
	tv->tv_sec = ts.tv_sec;
	tv->tv_usec = ts.tv_nsec / 1000;
	return 0;
}

int timer_create(clockid_t id, struct sigevent *restrict event, timer_t *restrict timer)
{
	int (*create)(clockid_t, struct sigevent *, timer_t *) = next_function("timer_create");
	int result = create(id, event, timer);

	host.timer = *timer;
	return result;
}

int timer_settime(timer_t timer, int flags, const struct itimerspec *restrict value,
		  struct itimerspec *restrict old)
{
	int64_t in = from_timespec(value->it_value);

	(void)timer, (void)flags, (void)old; /* there is one timer, relative to now */
	guest.next = in ? guest.now + in : 0;
	guest.interval = from_timespec(value->it_interval);
	set_host_timer();
	return 0;
}

int timer_gettime(timer_t timer, struct itimerspec *value)
{
	int64_t left = guest.next > guest.now ? guest.next - guest.now : 1;

	(void)timer;
	memset(value, 0, sizeof(*value));
	if (guest.next)
		value->it_value = to_timespec(left);
	return 0;
}

/* sigsuspend is called by an idle guest, with SIGALRM blocked but for the mask. */
int sigsuspend(const sigset_t *mask)
{
	int (*suspend)(const sigset_t *) = next_function("sigsuspend");

	if (guest.next) {
		if (guest.now < guest.next)
			guest.now = guest.next;
		guest.next = guest.interval ? guest.next + guest.interval : 0;
		host.touched = host_now();
		raise(SIGALRM);
	}
	return suspend(mask);
}

/* getrandom is what the guest takes for entropy. */
ssize_t getrandom(void *buffer, size_t size, unsigned int flags)
{
	static uint64_t state = 1;
	uint8_t *bytes = buffer;

	(void)flags;
	for (size_t i = 0; i < size; i++) {
		state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		bytes[i] = state >> 56;
	}
	return size;
}
