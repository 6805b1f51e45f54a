#include "common/tls_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "tests/common/temp_dir.h"

namespace baton {
namespace {

using testing::HasSubstr;

class TlsFilesTest : public testing::Test {
 protected:
  // A key and a certificate that it signed itself: NAME.key, NAME.crt.
  void Make(const std::string& name) {
    const std::string command =
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "
        "/CN=" +
        name + " -keyout " + directory_.File(name + ".key") + " -out " +
        directory_.File(name + ".crt") + " 2>/dev/null";
    ASSERT_EQ(std::system(command.c_str()), 0);
  }
  TlsFiles Of(const std::string& certificate, const std::string& key) {
    return {directory_.File(certificate), directory_.File(key), ""};
  }
  void ExpectRefused(const TlsFiles& files, const char* words) {
    const absl::Status status = CheckTlsFiles(files, "--tls");
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(words));
  }

  const test::TempDir directory_;
};

TEST_F(TlsFilesTest, SoundFilesAreTaken) {
  Make("a");
  EXPECT_TRUE(CheckTlsFiles({}, "--tls").ok());
  EXPECT_FALSE(TlsFiles{}.on());
  TlsFiles files = Of("a.crt", "a.key");
  EXPECT_TRUE(files.on());
  EXPECT_TRUE(CheckTlsFiles(files, "--tls").ok());
  files.ca = files.certificate;
  EXPECT_TRUE(CheckTlsFiles(files, "--tls").ok());
  EXPECT_EQ(files.paths().size(), 3u);
}

// Self-signed over a request, for only that takes an end in the past.
TEST_F(TlsFilesTest, AnExpiredCertificateIsRefused) {
  Make("a");
  const std::string key = directory_.File("a.key");
  const std::string command = "openssl req -new -key " + key + " -subj /CN=a -out " +
                              directory_.File("a.csr") + " 2>/dev/null && openssl x509 -req -in " +
                              directory_.File("a.csr") + " -signkey " + key + " -days -1 -out " +
                              directory_.File("old.crt") + " 2>/dev/null";
  ASSERT_EQ(std::system(command.c_str()), 0);
  ExpectRefused(Of("old.crt", "a.key"), "old.crt has expired");
}

TEST_F(TlsFilesTest, WhatIsMissingOrUnsoundIsNamed) {
  Make("a");
  Make("b");
  ExpectRefused({directory_.File("a.crt"), "", ""}, "--tls-cert and --tls-key need each other");
  ExpectRefused({"", "", directory_.File("a.crt")}, "a CA needs --tls-cert");
  ExpectRefused(Of("none.crt", "a.key"), "none.crt cannot be read: No such file");
  ExpectRefused(Of("a.crt", "b.key"), "is not the key of the certificate");
  ExpectRefused(Of("a.key", "a.key"), "has no certificate");
  ExpectRefused(Of("a.crt", "a.crt"), "has no private key");
  TlsFiles files = Of("a.crt", "a.key");
  files.ca = directory_.File("a.key");
  ExpectRefused(files, "--tls CA");
}

}  // namespace
}  // namespace baton
