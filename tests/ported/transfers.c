/* Fetches files from an HTTP server, some at a time, by a multi handle of libcurl's and
 * select. Prints a line for each in the order in which they were asked for, and the sum. */
#include "checksum.h"
#include "programs.h"

#include <curl/curl.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>

#define FILES 20 /* that are asked for in turn; some of them are not there */

struct transfer {
  char path[32];
  long status;
  size_t bytes;
  uint32_t checksum;
  CURLcode result;
  CURL* easy; /* while it is under way */
};

struct run {
  const char* address;
  int count;
  int started;
  int finished;
  struct transfer* all;
  CURLM* multi;
  FILE* out;
};

static size_t take_in(char* data, size_t size, size_t count, void* user) {
  struct transfer* const t = user;
  t->bytes += size * count;
  t->checksum = checksum_add(t->checksum, data, size * count);
  return size * count;
}

static int start_next(struct run* r) {
  char url[256];
  struct transfer* const t = &r->all[r->started];
  snprintf(t->path, sizeof(t->path), "/file-%d", r->started % FILES);
  snprintf(url, sizeof(url), "http://%s%s", r->address, t->path);
  t->checksum = CHECKSUM_START;
  t->easy = curl_easy_init();
  if (t->easy == NULL) {
    return -1;
  }
  ++r->started;
  curl_easy_setopt(t->easy, CURLOPT_URL, url);
  curl_easy_setopt(t->easy, CURLOPT_PROXY, "");
  curl_easy_setopt(t->easy, CURLOPT_WRITEFUNCTION, take_in);
  curl_easy_setopt(t->easy, CURLOPT_WRITEDATA, t);
  curl_easy_setopt(t->easy, CURLOPT_PRIVATE, (char*)t);
  curl_easy_setopt(t->easy, CURLOPT_TIMEOUT, 60L);
  return curl_multi_add_handle(r->multi, t->easy) == CURLM_OK ? 0 : -1;
}

static void end(struct run* r, struct transfer* t) {
  curl_multi_remove_handle(r->multi, t->easy);
  curl_easy_cleanup(t->easy);
  t->easy = NULL;
}

/* What has come to its end makes room for the next. */
static int collect(struct run* r) {
  CURLMsg* message = NULL;
  int left = 0;
  while ((message = curl_multi_info_read(r->multi, &left)) != NULL) {
    char* private = NULL;
    struct transfer* t = NULL;
    if (message->msg != CURLMSG_DONE) {
      continue;
    }
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &private);
    t = (struct transfer*)private;
    t->result = message->data.result;
    curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &t->status);
    end(r, t);
    ++r->finished;
    if (r->started < r->count && start_next(r) != 0) {
      return -1;
    }
  }
  return 0;
}

static int wait_for_more(struct run* r) {
  fd_set readers;
  fd_set writers;
  fd_set exceptional;
  struct timeval timeout;
  long milliseconds = -1;
  int highest = -1;
  FD_ZERO(&readers);
  FD_ZERO(&writers);
  FD_ZERO(&exceptional);
  if (curl_multi_fdset(r->multi, &readers, &writers, &exceptional, &highest) != CURLM_OK ||
      curl_multi_timeout(r->multi, &milliseconds) != CURLM_OK) {
    return -1;
  }
  if (milliseconds < 0 || milliseconds > 1000) {
    milliseconds = 1000;
  }
  if (highest < 0 && milliseconds > 100) {
    milliseconds =
        100; /* it has nothing to wait for that could be shown: its manual says to look again soon */
  }
  timeout.tv_sec = milliseconds / 1000;
  timeout.tv_usec = milliseconds % 1000 * 1000;
  if (select(highest + 1, &readers, &writers, &exceptional, &timeout) < 0 && errno != EINTR) {
    fprintf(r->out, "transfers: select: %s\n", strerror(errno));
    return -1;
  }
  return 0;
}

static int run_all(struct run* r, int at_a_time) {
  int running = 0;
  while (r->started < r->count && r->started < at_a_time) {
    if (start_next(r) != 0) {
      return -1;
    }
  }
  for (;;) {
    const CURLMcode performed = curl_multi_perform(r->multi, &running);
    if (performed != CURLM_OK) {
      fprintf(r->out, "transfers: %s\n", curl_multi_strerror(performed));
      return -1;
    }
    if (collect(r) != 0) {
      return -1;
    }
    if (r->finished == r->count) {
      return 0;
    }
    if (wait_for_more(r) != 0) {
      return -1;
    }
  }
}

static int print_all(const struct run* r) {
  size_t bytes = 0;
  int failed = 0;
  int i;
  for (i = 0; i < r->count; ++i) {
    const struct transfer* const t = &r->all[i];
    bytes += t->bytes;
    if (t->result != CURLE_OK) {
      ++failed;
      fprintf(r->out, "%d %s: %s\n", i, t->path, curl_easy_strerror(t->result));
    } else {
      fprintf(r->out, "%d %s %ld %zu %08x\n", i, t->path, t->status, t->bytes, (unsigned)t->checksum);
    }
  }
  fprintf(r->out, "%d transfers, %d failed, %zu bytes\n", r->count, failed, bytes);
  return failed;
}

int transfers(int argc, char** argv, FILE* out) {
  struct run r = {0};
  int status = 1;
  int i;
  if (argc != 4) {
    fprintf(out, "usage: transfers ADDRESS COUNT AT_A_TIME\n");
    return 2;
  }
  if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
    return 1;
  }
  r.out = out;
  r.address = argv[1];
  r.count = atoi(argv[2]);
  r.all = calloc((size_t)r.count + 1, sizeof(*r.all));
  r.multi = curl_multi_init();
  if (r.all != NULL && r.multi != NULL) {
    /* As many connections as transfers at a time, and each is used again. */
    curl_multi_setopt(r.multi, CURLMOPT_MAXCONNECTS, (long)atoi(argv[3]));
    if (run_all(&r, atoi(argv[3])) == 0) {
      status = print_all(&r) == 0 ? 0 : 1;
    }
    for (i = 0; i < r.started; ++i) {
      if (r.all[i].easy != NULL) {
        end(&r, &r.all[i]);
      }
    }
  }
  curl_multi_cleanup(r.multi);
  free(r.all);
  curl_global_cleanup();
  return status;
}
