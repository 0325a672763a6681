//! Routes: commands with a shell's tail, policy rules, and default routes that DHCP replaces.

use super::*;

fn moved(path: &str, before: &str, rules: Vec<Rule>) -> String {
    after(&run(&MemTree::new().file(path, before), rules), path).unwrap_or_else(|| before.to_owned())
}

#[test]
fn commands_with_a_tail_of_the_shell_are_edited() {
    let head = "iface ens192 inet static\n address 10.1.0.5/24\n";
    let path = "/etc/network/interfaces";
    for (before, expected) in [
        (
            "ip route add 10.9.0.0/16 via 10.1.0.9 dev $IFACE || true",
            "ip route add 10.9.0.0/16 via 10.2.0.9 dev $IFACE || true",
        ),
        ("ip route add 10.1.64.0/18 via 10.1.0.9; true", "ip route add 10.2.64.0/18 via 10.2.0.9; true"),
        (
            "ip route add 10.9.0.0/16 via 10.1.0.9 2>/dev/null || :",
            "ip route add 10.9.0.0/16 via 10.2.0.9 2>/dev/null || :",
        ),
        (
            "route add -net 10.9.0.0/16 gw 10.1.0.9 > /dev/null 2>&1",
            "route add -net 10.9.0.0/16 gw 10.2.0.9 > /dev/null 2>&1",
        ),
        (
            "ip rule add from 10.1.0.5 table 7 && logger done",
            "ip rule add from 10.2.0.5 table 7 && logger done",
        ),
    ] {
        let plan = run(&MemTree::new().file(path, format!("{head} up {before}\n")), vec![subnets()]);
        assert!(
            after(&plan, path).unwrap().ends_with(&format!(" up {expected}\n")),
            "{:?}",
            after(&plan, path)
        );
        assert!(!ids(&plan).contains(&"linux-readdress-left"), "{before}: {:?}", plan.findings);
    }
    // Another command with addresses behind it, or a value that the shell makes.
    for left in [
        "ip route add 10.9.0.0/16 via 10.1.0.9 || ip route add 10.9.0.0/16 via 10.1.0.8",
        "ip route add 10.9.0.0/16 via $GW src 10.1.0.5",
        "ip route add 10.9.0.0/16 via 10.1.0.9|cat",
    ] {
        let plan = run(&MemTree::new().file(path, format!("{head} up {left}\n")), vec![subnets()]);
        assert!(after(&plan, path).unwrap().ends_with(&format!(" up {left}\n")), "{left}");
        assert!(ids(&plan).contains(&"linux-readdress-left"), "{left}: {:?}", plan.findings);
    }
}

#[test]
fn policy_rules_of_keyfiles_move() {
    let path = "/etc/NetworkManager/system-connections/a.nmconnection";
    let before = "[connection]\nid=a\ntype=ethernet\ninterface-name=ens192\n[ipv4]\nmethod=manual\naddress1=10.1.0.5/24\n\
        routing-rule1=priority 5 from 10.1.0.0/24 table 7\nrouting-rule2=priority 6 from 0.0.0.0/0 to 10.1.64.0/18  table 7\n";
    let after = moved(path, before, vec![subnets()]);
    assert_eq!(
        after,
        before
            .replace("10.1.0.5/24", "10.2.0.5/24")
            .replace("10.1.0.0/24", "10.2.0.0/24")
            .replace("10.1.64.0", "10.2.64.0")
    );
}

#[test]
fn dhcp_takes_the_static_default_route_with_it() {
    let rules = || vec![subnets(), dhcp()];
    let ifcfg = (
        "/etc/sysconfig/network-scripts/ifcfg-ens192",
        "DEVICE=ens192\nBOOTPROTO=none\nIPADDR=10.1.0.5\nPREFIX=24\n",
    );
    let route = "/etc/sysconfig/network-scripts/route-ens192";
    for (before, expected) in [
        ("default via 10.1.0.1\n10.9.0.0/16 via 10.1.0.9\n", "10.9.0.0/16 via 10.2.0.9\n"),
        (
            "0.0.0.0/0 via 10.1.0.1 dev ens192\ndefault via 10.1.0.1 table 7\n",
            "default via 10.2.0.1 table 7\n",
        ),
        (
            "ADDRESS0=0.0.0.0\nNETMASK0=0.0.0.0\nGATEWAY0=10.1.0.1\nADDRESS1=10.9.0.0\nNETMASK1=255.255.0.0\nGATEWAY1=10.1.0.9\n",
            "ADDRESS1=10.9.0.0\nNETMASK1=255.255.0.0\nGATEWAY1=10.2.0.9\n",
        ),
    ] {
        let plan = run(&MemTree::new().files(&[ifcfg, (route, before)]), rules());
        assert_eq!(after(&plan, route).unwrap(), expected, "{before}");
    }
    let whole = ("/etc/sysconfig/network", "NETWORKING=yes\nGATEWAY=10.1.0.1\n");
    let plan = run(&MemTree::new().files(&[ifcfg, whole]), rules());
    assert_eq!(after(&plan, whole.0).unwrap(), "NETWORKING=yes\n");
    let head = "[connection]\nid=a\ntype=ethernet\ninterface-name=ens192\n[ipv4]\nmethod=";
    let keyfile = moved(
        "/etc/NetworkManager/system-connections/a.nmconnection",
        &format!(
            "{head}manual\naddress1=10.1.0.5/24\nroute1=0.0.0.0/0,10.1.0.1,100\nroute1_options=mtu=1400\nroute2=10.9.0.0/16,10.1.0.9\n\
            route3=0.0.0.0/0,10.1.0.1\nroute3_options=table=7\n"
        ),
        rules(),
    );
    assert_eq!(
        keyfile,
        format!(
            "{head}auto\nroute2=10.9.0.0/16,10.2.0.9\nroute3=0.0.0.0/0,10.2.0.1\nroute3_options=table=7\n"
        )
    );
    let interfaces = moved(
        "/etc/network/interfaces",
        "iface ens192 inet static\n address 10.1.0.5/24\n up ip route add default via 10.1.0.1 || true\n up ip route add 10.9.0.0/16 via 10.1.0.9\n",
        rules(),
    );
    assert_eq!(interfaces, "iface ens192 inet dhcp\n up ip route add 10.9.0.0/16 via 10.2.0.9\n");
}

#[test]
fn dhcp_takes_the_aliases_with_it() {
    let rules = || vec![subnets(), dhcp()];
    let path = "/etc/network/interfaces";
    let before = "auto ens192 ens192:1\niface ens192 inet static\n address 10.1.0.5/24\n\n# second\nauto ens192:2\niface ens192:1 inet static\n\
        \x20address 10.1.0.6/24\niface ens192:2 inet static\n address 10.1.0.7/24\n\nauto ens224\niface ens224 inet manual\n";
    let plan = run(&MemTree::new().file(path, before), rules());
    assert_eq!(
        after(&plan, path).unwrap(),
        "auto ens192\niface ens192 inet dhcp\n\n# second\n\nauto ens224\niface ens224 inet manual\n"
    );
    let gone: Vec<_> = plan.moved.iter().map(|moved| (moved.what, moved.before.as_str())).collect();
    assert_eq!(
        gone,
        [(What::Method, "10.1.0.5/24"), (What::Method, "10.1.0.6/24"), (What::Method, "10.1.0.7/24")]
    );
    // An alias of what has no address otherwise stays, and is told.
    let alone = "iface ens224 inet manual\niface ens224:1 inet static\n address 10.1.0.6/24\n";
    let plan = run(&MemTree::new().file(path, alone), rules());
    assert_eq!(
        (after(&plan, path).as_deref(), ids(&plan)[..2].to_vec()),
        (
            Some("iface ens224 inet manual\niface ens224:1 inet static\n address 10.2.0.6/24\n"),
            vec!["linux-readdress-unclear", "linux-readdress-unplaced"]
        )
    );
    let folder = "/etc/sysconfig/network-scripts";
    let (main, alias) = (format!("{folder}/ifcfg-ens192"), format!("{folder}/ifcfg-ens192:1"));
    let plan = run(
        &MemTree::new().files(&[
            (main.as_str(), "DEVICE=ens192\nBOOTPROTO=none\nIPADDR=10.1.0.5\nPREFIX=24\n"),
            (alias.as_str(), "DEVICE=ens192:1\nBOOTPROTO=none\nIPADDR=10.1.0.6\nPREFIX=24\n"),
        ]),
        rules(),
    );
    let edit = plan.edits.iter().find(|edit| edit.path == alias).unwrap();
    assert_eq!(edit.action, Action::Remove);
    assert!(plan.moved.iter().any(|moved| moved.before == "10.1.0.6/24" && moved.after == "dhcp"));
}
