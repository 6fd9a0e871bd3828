/* FNV-1a, for a program to show what it has seen in one word. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define CHECKSUM_START 2166136261U

static inline uint32_t checksum_add(uint32_t sum, const void* data, size_t size) {
  const unsigned char* const bytes = (const unsigned char*)data;
  size_t i;
  for (i = 0; i < size; ++i) {
    sum = (sum ^ bytes[i]) * 16777619U;
  }
  return sum;
}
