// What stands behind selector_core. Internal.
#pragma once

#include "candidates.hpp"
#include "registry.hpp"
#include "selector_core.hpp"

#include <annulet/hub/hub_core.hpp>

#include <memory>
#include <vector>

namespace annulet::detail {

class selector_impl final : public selector_core {
 public:
  explicit selector_impl(hub_core& hub) : link_(hub.link()) {}
  ~selector_impl() override { close(); }

  void require_registrable(const file_reference& file, io_event events) override;
  void add(const any_record& record) override;
  file_reference require_modifiable(const file_reference& file, io_event events) override;
  void replace(const any_record& record) override;
  any_record remove(const file_reference& file) override;
  void remove_all(std::span<const file_reference> files) override;
  std::span<const ready_record> select(deadline until) override;
  [[nodiscard]] any_record get_key(const file_reference& file) const override;
  void close() override;
  void tell(wait_place* who) noexcept override;
  bool has_ready(const wait_place* who) override;
  [[nodiscard]] std::size_t size() const override;
  [[nodiscard]] any_record find(const file_reference& file) const override;
  [[nodiscard]] std::size_t places() const override;
  [[nodiscard]] any_record at_place(std::size_t place) const override;

  // The kernel is to be asked about this one; a parked select does so at once.
  void note(registration& r) noexcept;
  // Its watch had an event.
  void note_event(registration& r) noexcept;

 private:
  // This selector's hub, if the call may be made: throws hub_gone, wrong_thread, or the closed error.
  hub_core& open(const char* call) const {
    hub_core& hub = hub_core::of(*link_, call);
    if (closed_) [[unlikely]] {
      throw_closed(call);
    }
    return hub;
  }
  // The same for select, which one fiber at a time may be parked in.
  hub_core& unparked(const char* call) const {
    hub_core& hub = open(call);
    if (parked_ != nullptr) [[unlikely]] {
      throw_parked(call);
    }
    return hub;
  }
  [[noreturn, gnu::cold]] static void throw_parked(const char* call);
  void forget(registration& r) noexcept;
  std::span<const ready_record> look(hub_core& hub);
  void face_failures();
  wake_reason park(hub_core& hub, deadline until);

  std::shared_ptr<hub_link> link_;
  registry keys_{*this};
  candidates candidates_;
  std::vector<ready_record> ready_;
  wait_place* parked_ = nullptr;
  bool failures_ = false;  // some candidate has an error
  bool closed_ = false;
};

}  // namespace annulet::detail
