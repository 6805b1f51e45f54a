#pragma once

// A real etcd on ports of its own, for tests.

#include <string>
#include <vector>

#include "discovery/etcd_options.h"
#include "tests/common/temp_dir.h"

namespace baton::discovery {

// Its time-outs are short, so that leases of a second are possible.
class EtcdProcess {
 public:
  // `more`: further flags; `control`: etcdctl's.
  explicit EtcdProcess(std::vector<std::string> more = {}, std::string scheme = "http",
                       std::string control = "");
  ~EtcdProcess() { Kill(); }
  EtcdProcess(const EtcdProcess&) = delete;
  EtcdProcess& operator=(const EtcdProcess&) = delete;

  const std::string& endpoint() const { return endpoint_; }
  EtcdOptions options() const;

  // Starts it, as the constructor does, on the same port and data; waits until it answers.
  void Start();
  // Likewise with the same data, but where nobody knows it; etcdctl does.
  void StartElsewhere();
  void Kill();    // SIGKILL
  void Forget();  // its data; not while it runs
  void Signal(int number) const;
  // etcdctl with these arguments: what it prints. The test fails when it fails.
  std::string Control(const std::string& arguments) const;
  // The value of a key; "": there is none.
  std::string Get(const std::string& key) const;

  // What etcdctl needs beside its arguments.
  std::string control_flags;

 private:
  void StartAt(const std::string& endpoint);

  test::TempDir directory_;
  const std::vector<std::string> more_;
  const std::string endpoint_, elsewhere_, peer_;
  std::string now_at_;
  int pid_ = 0;
};

}  // namespace baton::discovery
