/* Moves the wall clock of a process by PACER_SKEW_MS, for clocks that are not quite right. Other clocks stay. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t id, struct timespec *at) {
	int failed = (int)syscall(SYS_clock_gettime, id, at);
	const char *skew = getenv("PACER_SKEW_MS");
	if (!failed && skew && id == CLOCK_REALTIME) {
		long long ns = at->tv_sec * 1000000000LL + at->tv_nsec + atoll(skew) * 1000000LL;
		at->tv_sec = ns / 1000000000LL;
		at->tv_nsec = ns % 1000000000LL;
	}
	return failed;
}
