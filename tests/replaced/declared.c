/* No header at all; a declaration in a function, too, and again. */
int close(int fd);
long read(int fd, void* into, unsigned long size);

int use(int fd);
int use(int fd) {
  extern unsigned sleep(unsigned seconds);
  char byte;
  return (int)sleep(1) + (int)read(fd, &byte, 1) + close(fd);
}

unsigned use_again(void);
unsigned use_again(void) {
  extern unsigned sleep(unsigned seconds);
  return sleep(2);
}
