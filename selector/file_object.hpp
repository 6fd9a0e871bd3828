// What can be registered: a descriptor, or an object that has one. As in Python, where anything with fileno()
// will do.
#pragma once

#include <concepts>
#include <memory>
#include <type_traits>
#include <typeinfo>

namespace annulet {

namespace detail {

template <class T>
inline constexpr bool is_number = std::is_same_v<std::remove_cvref_t<T>, int>;

template <class T>
concept has_fileno = requires(T& object) {
  { object.fileno() } -> std::same_as<int>;
};

}  // namespace detail

// An int, or an lvalue whose fileno() is one. The selector knows an object by its address and type, so it
// must stay where it is while registered, and a temporary does not compile.
template <class T>
concept file_object = detail::is_number<T> ||(std::is_lvalue_reference_v<T>&& detail::has_fileno<T>);

namespace detail {

// A registered object, remembered by identity. Null for a plain descriptor.
struct object_identity {
  const void* address = nullptr;
  const std::type_info* type = nullptr;
  bool is_const = false;

  [[nodiscard]] bool same_as(const object_identity& other) const noexcept {
    return address != nullptr && address == other.address && *type == *other.type;
  }
};

struct file_reference {
  int fd;
  object_identity object;
};

template <file_object F>
[[nodiscard]] file_reference refer_to(F&& file) {
  if constexpr (is_number<F>) {
    return {file, {}};
  } else {
    using object = std::remove_reference_t<F>;
    return {file.fileno(),
            {std::addressof(file), &typeid(std::remove_const_t<object>), std::is_const_v<object>}};
  }
}

}  // namespace detail

}  // namespace annulet
