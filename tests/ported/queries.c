/* Asks a PostgreSQL server a dozen questions by libpq's asynchronous calls and poll, and prints the answers.
 */
#include "checksum.h"
#include "programs.h"

#include <libpq-fe.h>

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define PATIENCE 60000 /* milliseconds, for whatever the server takes its time for */
#define ROWS_SHOWN 3

struct client {
  PGconn* connection;
  FILE* out;
};

/* What came of `events`; 0 after too long, and -1 for an error, both told. */
static int wait_for(const struct client* c, short events) {
  struct pollfd one = {0};
  int ready = 0;
  one.fd = PQsocket(c->connection);
  one.events = events;
  do {
    ready = poll(&one, 1, PATIENCE);
  } while (ready < 0 && errno == EINTR);
  if (ready > 0) {
    return one.revents;
  }
  fprintf(c->out, "queries: poll: %s\n", ready == 0 ? "no answer" : strerror(errno));
  return ready;
}

static int complain(const struct client* c, const char* call) {
  fprintf(c->out, "queries: %s: %s", call, PQerrorMessage(c->connection));
  return -1;
}

static int connect_to(struct client* c, const char* conninfo) {
  PostgresPollingStatusType next = PGRES_POLLING_WRITING;
  c->connection = PQconnectStart(conninfo);
  if (c->connection == NULL || PQstatus(c->connection) == CONNECTION_BAD) {
    return complain(c, "PQconnectStart");
  }
  while (next != PGRES_POLLING_OK) {
    if (wait_for(c, next == PGRES_POLLING_READING ? POLLIN : POLLOUT) <= 0) {
      return -1;
    }
    next = PQconnectPoll(c->connection);
    if (next == PGRES_POLLING_FAILED) {
      return complain(c, "PQconnectPoll");
    }
  }
  return PQsetnonblocking(c->connection, 1) == 0 ? 0 : complain(c, "PQsetnonblocking");
}

/* Until all that was sent is on its way. The server may not take it in before it has got rid of its own. */
static int flush_all(const struct client* c) {
  int left = 0;
  while ((left = PQflush(c->connection)) > 0) {
    const int events = wait_for(c, POLLIN | POLLOUT);
    if (events <= 0) {
      return -1;
    }
    if ((events & POLLIN) != 0 && PQconsumeInput(c->connection) == 0) {
      return complain(c, "PQconsumeInput");
    }
  }
  return left == 0 ? 0 : complain(c, "PQflush");
}

/* Until PQgetResult, or PQgetCopyData, has something without waiting. */
static int await_input(const struct client* c) {
  if (wait_for(c, POLLIN) <= 0) {
    return -1;
  }
  return PQconsumeInput(c->connection) != 0 ? 0 : complain(c, "PQconsumeInput");
}

static int next_result(const struct client* c, PGresult** result) {
  while (PQisBusy(c->connection) != 0) {
    if (await_input(c) != 0) {
      return -1;
    }
  }
  *result = PQgetResult(c->connection);
  return 0;
}

static void show_row(const struct client* c, const PGresult* result, int row) {
  int column;
  for (column = 0; column < PQnfields(result); ++column) {
    fprintf(c->out, "%s%.40s", column == 0 ? "  " : " | ",
            PQgetisnull(result, row, column) != 0 ? "null" : PQgetvalue(result, row, column));
  }
  fprintf(c->out, "\n");
}

struct rows {
  long count;
  uint32_t checksum;
};

static void take_rows(const struct client* c, const PGresult* result, struct rows* seen) {
  int row;
  int column;
  for (row = 0; row < PQntuples(result); ++row) {
    if (seen->count < ROWS_SHOWN) {
      show_row(c, result, row);
    }
    ++seen->count;
    for (column = 0; column < PQnfields(result); ++column) {
      seen->checksum = checksum_add(seen->checksum, PQgetvalue(result, row, column),
                                    (size_t)PQgetlength(result, row, column));
    }
  }
}

/* The lines that the server copies out. */
static int copy_out(const struct client* c) {
  struct rows seen = {0, CHECKSUM_START};
  char* line = NULL;
  int size = 0;
  while ((size = PQgetCopyData(c->connection, &line, 1)) >= 0) {
    if (size == 0 && await_input(c) != 0) {
      return -1;
    }
    if (size > 0) {
      ++seen.count;
      seen.checksum = checksum_add(seen.checksum, line, (size_t)size);
      PQfreemem(line);
    }
  }
  fprintf(c->out, "  %ld lines copied out, %08x\n", seen.count, (unsigned)seen.checksum);
  return size == -1 ? 0 : complain(c, "PQgetCopyData");
}

/* Some lines for the server to copy in. */
static int copy_in(const struct client* c) {
  char line[64];
  int done = 0;
  int i;
  for (i = 0; i < 1000; ++i) {
    const int size = snprintf(line, sizeof(line), "%d\tline number %d\n", 1000 + i, i);
    while ((done = PQputCopyData(c->connection, line, size)) == 0) {
      if (flush_all(c) != 0) {
        return -1;
      }
    }
    if (done < 0) {
      return complain(c, "PQputCopyData");
    }
  }
  while ((done = PQputCopyEnd(c->connection, NULL)) == 0) {
    if (flush_all(c) != 0) {
      return -1;
    }
  }
  return done > 0 ? flush_all(c) : complain(c, "PQputCopyEnd");
}

static int show(const struct client* c, const PGresult* result, struct rows* seen) {
  switch (PQresultStatus(result)) {
    case PGRES_SINGLE_TUPLE:
      take_rows(c, result, seen);
      return 0;
    case PGRES_TUPLES_OK:
      take_rows(c, result, seen);
      fprintf(c->out, "  %ld rows of %d columns, %08x\n", seen->count, PQnfields(result),
              (unsigned)seen->checksum);
      return 0;
    case PGRES_COMMAND_OK:
      fprintf(c->out, "  %s\n", PQcmdStatus((PGresult*)result));
      return 0;
    case PGRES_COPY_OUT:
      return copy_out(c);
    case PGRES_COPY_IN:
      return copy_in(c);
    case PGRES_FATAL_ERROR:
      fprintf(c->out, "  %s: %s\n", PQresultErrorField(result, PG_DIAG_SQLSTATE),
              PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY));
      return PQstatus(c->connection) == CONNECTION_OK ? 0 : -1;
    default:
      fprintf(c->out, "  %s\n", PQresStatus(PQresultStatus(result)));
      return -1;
  }
}

/* All that the server has to say to what was sent. */
static int show_answers(const struct client* c) {
  struct rows seen = {0, CHECKSUM_START};
  if (flush_all(c) != 0) {
    return -1;
  }
  for (;;) {
    PGresult* result = NULL;
    int shown = 0;
    if (next_result(c, &result) != 0) {
      return -1;
    }
    if (result == NULL) {
      return 0;
    }
    shown = show(c, result, &seen);
    PQclear(result);
    if (shown != 0) {
      return -1;
    }
  }
}

static int ask(const struct client* c, const char* query) {
  fprintf(c->out, "%s\n", query);
  return PQsendQuery(c->connection, query) != 0 ? show_answers(c) : complain(c, "PQsendQuery");
}

static int ask_with(const struct client* c, const char* query, const char* first, const char* second) {
  const char* const values[2] = {first, second};
  fprintf(c->out, "%s with %s, %s\n", query, first, second);
  return PQsendQueryParams(c->connection, query, 2, NULL, values, NULL, NULL, 0) != 0
             ? show_answers(c)
             : complain(c, "PQsendQueryParams");
}

/* Row by row, as what may be large is asked for. */
static int ask_for_many(const struct client* c) {
  static const char query[] =
      "select g, repeat(md5(g::text), 1 + g % 4) from generate_series(1, $1::int) g where g <> $2::int";
  const char* const values[2] = {"1000", "17"};
  fprintf(c->out, "%s\n", query);
  return PQsendQueryParams(c->connection, query, 2, NULL, values, NULL, NULL, 0) != 0 &&
                 PQsetSingleRowMode(c->connection) != 0
             ? show_answers(c)
             : complain(c, "PQsendQueryParams");
}

/* A word to itself, on a channel of its own. */
static int notify(const struct client* c) {
  char command[96];
  PGnotify* told = NULL;
  snprintf(command, sizeof(command), "listen word_%d; notify word_%d, 'hello'", PQbackendPID(c->connection),
           PQbackendPID(c->connection));
  if (PQsendQuery(c->connection, command) == 0) {
    return complain(c, "PQsendQuery");
  }
  if (show_answers(c) != 0) {
    return -1;
  }
  while ((told = PQnotifies(c->connection)) == NULL) {
    if (await_input(c) != 0) {
      return -1;
    }
  }
  fprintf(c->out, "told: %s\n", told->extra);
  PQfreemem(told);
  return 0;
}

static int ask_all(const struct client* c) {
  static const char* const questions[] = {
      "select 1 + 1 as two, null as nothing",
      "select g, md5(g::text) from generate_series(1, 1000) g",
      "create temp table notes (id int primary key, body text)",
      "insert into notes select g, repeat('x', g % 50) from generate_series(1, 500) g",
      "select count(*), sum(length(body)) from notes",
      "update notes set body = body || '!' where id % 100 = 0 returning id, length(body)",
      "select 1 / 0",
      "select 'after the error' as here",
      "insert into notes values (1, 'once more')",
      "select pg_sleep(0.05)",
      "copy notes from stdin",
      "copy (select * from notes order by id) to stdout",
      "select 1; select 2; select 3",
  };
  size_t i;
  for (i = 0; i < sizeof(questions) / sizeof(questions[0]); ++i) {
    if (ask(c, questions[i]) != 0) {
      return -1;
    }
  }
  return ask_with(c, "select id, body from notes where id between $1 and $2 order by id", "1100", "1110") !=
                     0 ||
                 ask_for_many(c) != 0 || ask(c, "drop table notes") != 0 || notify(c) != 0
             ? -1
             : 0;
}

int queries(int argc, char** argv, FILE* out) {
  struct client c = {NULL, out};
  int status = 1;
  int rounds = 0;
  if (argc != 3) {
    fprintf(out, "usage: queries CONNINFO ROUNDS\n");
    return 2;
  }
  rounds = atoi(argv[2]);
  if (connect_to(&c, argv[1]) == 0) {
    while (rounds > 0 && ask_all(&c) == 0) {
      --rounds;
    }
    status = rounds == 0 ? 0 : 1;
  }
  PQfinish(c.connection);
  return status;
}
