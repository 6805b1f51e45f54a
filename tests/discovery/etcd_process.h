#pragma once

// A real etcd on ports of its own, for tests.

#include <memory>
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
  // A member of an EtcdCluster, which starts it.
  struct Member {
    std::string name, peer;  // URL for the others
    std::string cluster;     // all of them, as etcd has it
  };
  explicit EtcdProcess(Member member);
  ~EtcdProcess() { Kill(); }
  EtcdProcess(const EtcdProcess&) = delete;
  EtcdProcess& operator=(const EtcdProcess&) = delete;

  const std::string& endpoint() const { return endpoint_; }
  EtcdOptions options() const;

  // Starts it, as the constructor does, on the same port and data; waits until it answers.
  void Start();
  // Likewise with the same data, but where nobody knows it; etcdctl does.
  void StartElsewhere();
  // A member answers only with most of the others: all are spawned, then waited for.
  void Spawn();
  void AwaitAnswer() const;
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
  void SpawnAt(const std::string& endpoint);

  test::TempDir directory_;
  const std::vector<std::string> more_;
  const std::string endpoint_, elsewhere_;
  const Member member_;
  std::string now_at_;
  int pid_ = 0;
};

// Three members. All have their endpoints in options(), in order.
class EtcdCluster {
 public:
  EtcdCluster();
  EtcdProcess& member(size_t index) { return *members_.at(index); }
  EtcdOptions options() const;

 private:
  std::vector<std::unique_ptr<EtcdProcess>> members_;
};

}  // namespace baton::discovery
