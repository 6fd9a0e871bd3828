/* What a call costs on its way through libannulet-posix, on a thread without a hub: nanoseconds, the least of
 * many rounds. The library behind it makes it of no cost itself. */
#define _GNU_SOURCE

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <time.h>

typedef ssize_t call(int fd, const struct iovec* into, int count);

static double nanoseconds_a_call(call* one) {
  enum { calls = 200000 };
  struct timespec begin;
  struct timespec end;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  for (int i = 0; i < calls; ++i) {
    if (one(-1, NULL, i) != i) {
      abort();
    }
  }
  clock_gettime(CLOCK_MONOTONIC, &end);
  return ((double)(end.tv_sec - begin.tv_sec) * 1e9 + (double)(end.tv_nsec - begin.tv_nsec)) / calls;
}

int main(int argc, char** argv) {
  void* const behind = argc == 2 ? dlopen(argv[1], RTLD_NOW) : NULL;
  call* const direct = behind == NULL ? NULL : (call*)dlsym(behind, "readv");
  if (direct == NULL || direct == readv) {
    fputs("the library behind is not to be found, or nothing is before it\n", stderr);
    return 1;
  }
  double least = 1e9;
  double least_direct = 1e9;
  for (int round = 0; round < 100; ++round) {
    const double now = nanoseconds_a_call(readv);
    const double now_direct = nanoseconds_a_call(direct);
    least = now < least ? now : least;
    least_direct = now_direct < least_direct ? now_direct : least_direct;
  }
  printf("%.2f\n", least - least_direct);
  return 0;
}
