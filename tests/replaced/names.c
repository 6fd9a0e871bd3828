/* What has one of the names and is no call: before the system's headers, and after them. */
struct file {
  int (*read)(struct file*);
  int (*close)(struct file*);
  int select;
};
enum how { by_poll, by_select };

static int send(struct file* file) { return file->select; }
extern int sum_of(struct file* file);
int sum_of(struct file* file) {
  int read = file->read(file);
  int close = file->close(file);
  int poll = (int)by_poll;
  return read + close + poll + send(file);
}

#include <poll.h>
#include <unistd.h>

extern int after(struct file* file);
int after(struct file* file) {
  const struct { int close, poll; } both = {1, 2};
  const int close = file->close(file);
  struct pollfd none;
  return close + both.close + both.poll + (int)read(file->select, file, 1) + poll(&none, 0, 0);
}
