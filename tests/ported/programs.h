/* Programs as people write them, each around a loop of its own that waits. They keep everything in their
 * frames and on the heap, so that many of each may run in one process. All that they say goes to `out`; the
 * result is the exit status. */
#pragma once

#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* transfers ADDRESS COUNT AT_A_TIME: fetches files from the HTTP server at 127.0.0.1:80, say; libcurl, on
 * select. */
int transfers(int argc, char** argv, FILE* out);

/* queries CONNINFO ROUNDS: asks a PostgreSQL server this and that, so often; libpq, on poll. */
int queries(int argc, char** argv, FILE* out);

/* chat_server PATH CLIENTS: sends each line of a client to all, until so many have come and gone; on select.
 * chat_client PATH NAME LINES CLIENTS: says its lines, and listens until all have said theirs; on poll. */
int chat_server(int argc, char** argv, FILE* out);
int chat_client(int argc, char** argv, FILE* out);

/* event_loop CLIENTS MESSAGES: an echo server and its clients on one loop with timers; on epoll_wait. */
int event_loop(int argc, char** argv, FILE* out);

#ifdef __cplusplus
}
#endif
