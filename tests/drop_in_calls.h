/* Every drop-in that can park, each called in one way, for drop_in_kills_test.cpp. They are written in C, and
 * compiled twice: as C, and as C++. */
#ifndef DROP_IN_CALLS_H
#define DROP_IN_CALLS_H

#include <stddef.h>
#include <sys/socket.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What ends a call. */
enum drop_in_event {
  EVENT_NONE,       /* a second is over */
  EVENT_BYTE,       /* a byte comes, and is left where it is */
  EVENT_BYTE_TAKEN, /* the same, and the call takes it */
  EVENT_ROOM,       /* the peer takes what was sent */
  EVENT_CONNECTION, /* somebody connects */
  EVENT_ACCEPTANCE  /* somebody accepts */
};

struct drop_in_ends {
  int fd;
  int epoll; /* has the descriptor */
  const void* bytes;
  size_t size; /* to be sent */
  const struct sockaddr* peer;
  socklen_t peer_size;
};

struct drop_in_call {
  const char* name;
  enum drop_in_event event;
  /* What it found, wrote or read, a new descriptor, or 1 for a connection; -1 with errno. */
  long (*make)(const struct drop_in_ends* ends);
};

extern const struct drop_in_call drop_in_calls_in_c[];
extern const struct drop_in_call drop_in_calls_in_cpp[];
extern const size_t drop_in_call_count;

#ifdef __cplusplus
}
#endif

#endif
