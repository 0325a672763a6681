//! Whom a connection trusts, and who may log in.

use super::vcsim::{Vcsim, ovf};
use super::{document, landfall};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

fn error(output: &Output) -> (Value, i32) {
    let (document, code) = document(output);
    (document["error"].clone(), code)
}

/// A certificate's digest, by Python.
fn thumbprint(vcsim: &Vcsim, digest: &str) -> String {
    let script = "import hashlib, ssl, sys; print(hashlib.new(sys.argv[2], \
                  ssl.PEM_cert_to_DER_cert(open(sys.argv[1]).read())).hexdigest())";
    let told = Command::new("python3")
        .args(["-c", script])
        .arg(vcsim.path("cert.pem"))
        .arg(digest)
        .output()
        .unwrap();
    assert!(told.status.success());
    String::from_utf8(told.stdout).unwrap().trim().to_owned()
}

#[test]
fn only_a_server_that_somebody_vouches_for_gets_the_password() {
    let Some(vcsim) = Vcsim::start(&["-esx"]) else { return };
    let Some(other) = Vcsim::start(&["-esx"]) else { return };
    let folder = ovf(vcsim.folder.path(), "web01", 1);
    let try_with = |trust: &[&str]| {
        let mut command = landfall();
        command.args(["--json", "register", "--dry-run"]).arg(&folder);
        command
            .args(["--at", &format!("esxi://{}", vcsim.address), "--credentials"])
            .arg(vcsim.path("credentials"));
        command.args(trust).output().unwrap()
    };
    let sha256 = thumbprint(&vcsim, "sha256");
    let colons = |digits: &str| {
        let pairs: Vec<&str> =
            digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap()).collect();
        pairs.join(":").to_uppercase()
    };
    // The system's authorities do not know it, and neither does another server's.
    let other_ca = other.path("cert.pem");
    let other_print = thumbprint(&other, "sha256");
    for wrong in [&[][..], &["--register-ca", other_ca.to_str().unwrap()], &["--thumbprint", &other_print]] {
        let (error, code) = error(&try_with(wrong));
        assert_eq!((code, error["kind"].as_str()), (1, Some("refused")), "{wrong:?}: {error:#}");
        assert!(error["says"].as_str().unwrap().contains("not trusted"), "{error:#}");
        assert!(error["hint"].as_str().unwrap().contains(&colons(&sha256)), "{error:#}");
    }
    let ca = vcsim.path("cert.pem");
    let sha1 = colons(&thumbprint(&vcsim, "sha1"));
    for right in [["--register-ca", ca.to_str().unwrap()], ["--thumbprint", &sha256], ["--thumbprint", &sha1]]
    {
        let done = try_with(&right);
        assert_eq!(document(&done).1, 0, "{right:?}: {}", super::all(&done));
    }
}

#[test]
fn passwords_come_from_files_and_the_environment_and_are_never_shown() {
    let Some(vcsim) = Vcsim::start(&["-esx"]) else { return };
    let folder = ovf(vcsim.folder.path(), "web01", 1);
    let bare = |at: &str| {
        let mut command = landfall();
        command.args(["--json", "-vv", "register", "--dry-run"]).arg(&folder);
        command.args(["--at", at, "--register-ca"]).arg(vcsim.path("cert.pem"));
        command
    };
    let address = format!("esxi://{}", vcsim.address);
    let from_environment =
        bare(&address).env("LANDFALL_USER", "root").env("LANDFALL_PASSWORD", "se<cr>&t").output().unwrap();
    assert_eq!(document(&from_environment).1, 0, "{}", super::all(&from_environment));
    assert!(
        !super::all(&from_environment).contains("se<cr>&t")
            && !super::all(&from_environment).contains("se&lt;cr")
    );

    let (none, code) = error(&bare(&address).output().unwrap());
    assert!(code == 1 && none["hint"].as_str().unwrap().contains("--credentials"), "{none:#}");
    let shown = bare(&format!("esxi://root:hunter2@{}", vcsim.address)).output().unwrap();
    assert!(error(&shown).1 == 1 && !super::all(&shown).contains("hunter2"), "{}", super::all(&shown));

    let credentials = vcsim.credentials("hunter2");
    let with_file = || bare(&address).arg("--credentials").arg(&credentials).output().unwrap();
    let wrong = with_file();
    let (error_of_wrong, code) = error(&wrong);
    assert!(code == 1 && error_of_wrong["says"].as_str().unwrap().contains("password"), "{error_of_wrong:#}");
    assert!(!super::all(&wrong).contains("hunter2"));
    fs::set_permissions(&credentials, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(error(&with_file()).0["hint"].as_str().unwrap().contains("chmod 600"));
}

#[test]
fn the_keyring_is_asked() {
    let Some(vcsim) = Vcsim::start(&["-esx"]) else { return };
    let folder = ovf(vcsim.folder.path(), "web01", 1);
    // Stands in for libsecret's program, which needs a desktop: the same question, the same way of answering.
    let programs = vcsim.path("bin");
    fs::create_dir(&programs).unwrap();
    let tool = programs.join("secret-tool");
    let script =
        "#!/bin/sh\n[ \"$*\" = 'lookup service landfall host 127.0.0.1 user root' ] && printf 'se<cr>&t'\n";
    fs::write(&tool, script).unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let done = landfall()
        .env("PATH", path)
        .args(["--json", "register", "--dry-run"])
        .arg(&folder)
        .args(["--at", &format!("esxi://root@{}", vcsim.address), "--register-ca"])
        .arg(vcsim.path("cert.pem"))
        .output()
        .unwrap();
    assert_eq!(document(&done).1, 0, "{}", super::all(&done));
}
