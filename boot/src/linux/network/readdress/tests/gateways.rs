//! Gateways and the networks that they have to be in; values that no rule covers, and rules that nothing meets.

use super::*;

fn rule(from: &str, to: &str) -> Rule {
    Rule { subnets: vec![(from.parse().unwrap(), to.parse().unwrap())], ..Rule::default() }
}

fn with_gateway(rule: Rule, gateway: &str) -> Rule {
    Rule { gateways: vec![gateway.parse().unwrap()], ..rule }
}

const INTERFACES: &str = "/etc/network/interfaces";

fn says<'p>(plan: &'p PatchPlan, id: &str) -> Vec<&'p str> {
    plan.findings.iter().filter(|finding| finding.id == id).map(|finding| finding.says.as_str()).collect()
}

#[test]
fn the_gateway_of_a_rule_is_for_its_subnets() {
    let tree = MemTree::new().file(
        INTERFACES,
        "iface ens192 inet static\n address 10.1.0.5/24\n gateway 10.1.0.1\n\
         iface ens224 inet static\n address 192.168.5.5/24\n gateway 192.168.5.1\n",
    );
    let rules = vec![
        with_gateway(rule("10.1.0.0/16", "10.2.0.0/16"), "10.2.0.254"),
        with_gateway(rule("192.168.5.0/24", "192.168.6.0/24"), "192.168.6.254"),
    ];
    let plan = run(&tree, rules);
    assert_eq!(
        after(&plan, INTERFACES).unwrap(),
        "iface ens192 inet static\n address 10.2.0.5/24\n gateway 10.2.0.254\n\
         iface ens224 inet static\n address 192.168.6.5/24\n gateway 192.168.6.254\n"
    );
    assert_eq!(ids(&plan), ["linux-readdress-scope"]);
    // A single address counts as its rule's subnet does.
    let single = Rule {
        addresses: vec![(
            "10.1.0.5".parse().unwrap(),
            Host { ip: "10.3.0.5".parse().unwrap(), prefix: None },
        )],
        ..with_gateway(rule("192.168.5.0/24", "192.168.6.0/24"), "10.3.0.254")
    };
    let one = MemTree::new()
        .file(INTERFACES, "iface ens192 inet static\n address 10.1.0.5/24\n gateway 10.1.0.1\n");
    assert!(after(&run(&one, vec![single]), INTERFACES).unwrap().contains("gateway 10.3.0.254"));
}

#[test]
fn a_gateway_that_no_network_of_its_interface_holds_is_told() {
    let tree = |text: &str| MemTree::new().file(INTERFACES, text);
    let plain = "iface ens192 inet static\n address 10.1.0.5/24\n gateway 10.1.0.1\n";
    let far = || vec![rule("10.1.0.0/16", "10.2.0.0/16"), with_gateway(Rule::default(), "10.9.0.254")];
    let plan = run(&tree(plain), far());
    assert_eq!(
        says(&plan, "linux-readdress-gateway"),
        [
            "/etc/network/interfaces gives ens192 the gateway 10.9.0.254, which is in none of its networks (10.2.0.5/24)."
        ]
    );
    assert!(!plan.is_blocked());
    // One that is left behind, too.
    let left = Rule {
        addresses: vec![(
            "10.1.0.5".parse().unwrap(),
            Host { ip: "10.2.0.5".parse().unwrap(), prefix: None },
        )],
        ..Rule::default()
    };
    assert_eq!(says(&run(&tree(plain), vec![left]), "linux-readdress-gateway").len(), 1);
    // Reached without a network of its own before, and then too; by DHCP; over a link-local address.
    for (text, rules) in [
        ("iface ens192 inet static\n address 10.1.0.5/32\n gateway 10.1.0.1\n", far()),
        ("iface ens192 inet static\n address 10.1.0.5/24\n gateway 10.7.0.1\n", far()),
        (plain, [far(), vec![dhcp()]].concat()),
        (
            "iface ens192 inet6 static\n address 2001:db8:1::5/64\n gateway 2001:db8:1::1\n",
            vec![subnets(), with_gateway(Rule::default(), "fe80::1")],
        ),
    ] {
        let plan = run(&tree(text), rules);
        assert!(says(&plan, "linux-readdress-gateway").is_empty(), "{text}: {:?}", plan.findings);
    }
}

#[test]
fn an_address_of_the_machine_that_stays_is_a_warning() {
    let tree = MemTree::new().file(
        INTERFACES,
        "iface ens192 inet static\n address 10.1.0.5/24\n dns-nameservers 8.8.8.8\n\
         iface ens224 inet static\n address 192.168.5.5/24\n",
    );
    let plan = run(&tree, vec![subnets()]);
    assert_eq!(
        says(&plan, "linux-readdress-address-stays"),
        ["ens224 keeps 192.168.5.5 (/etc/network/interfaces), which no rule of the network map covers."]
    );
    assert_eq!(says(&plan, "linux-readdress-unmapped").len(), 1, "{:?}", plan.findings);
    // A rule that says so is enough; what is at the other site already, and maps without addresses, are no matter.
    let stays = rule("192.168.5.0/24", "192.168.5.0/24");
    for rules in
        [vec![subnets(), stays], vec![rule("172.16.0.0/16", "192.168.0.0/16"), subnets()], vec![servers()]]
    {
        let plan = run(&tree, rules);
        assert!(says(&plan, "linux-readdress-address-stays").is_empty(), "{:?}", plan.findings);
    }
    // A rule that would, for other interfaces.
    let other =
        Rule { cards: Some(vec![]), place: "map.toml:7".into(), ..rule("192.168.5.0/24", "10.4.0.0/24") };
    let plan = run(&tree, vec![subnets(), other]);
    assert!(
        says(&plan, "linux-readdress-address-stays")[0].ends_with(
            "which no rule of the network map covers; the one at map.toml:7 is for other interfaces."
        ),
        "{:?}",
        plan.findings
    );
}

#[test]
fn a_rule_that_nothing_meets_is_told() {
    let tree = MemTree::new()
        .file(INTERFACES, "iface ens192 inet static\n address 10.1.0.5/24\n gateway 10.1.0.1\n");
    let unmet = Rule {
        cards: Some(vec![]),
        place: "map.toml:4".into(),
        ..with_gateway(Rule::default(), "10.2.0.254")
    };
    let plan = run(&tree, vec![subnets(), unmet]);
    assert_eq!(
        says(&plan, "linux-readdress-rule-unused"),
        ["No interface of the guest meets the condition of the rule at map.toml:4."]
    );
    // What it asks for is not said to have no place.
    assert!(says(&plan, "linux-readdress-unplaced").is_empty(), "{:?}", plan.findings);
    // A gateway that moves with its subnet has its place.
    let elsewhere = with_gateway(rule("172.16.0.0/16", "172.17.0.0/16"), "172.17.0.254");
    let plan = run(&tree, vec![subnets(), elsewhere]);
    assert!(says(&plan, "linux-readdress-unplaced").is_empty(), "{:?}", plan.findings);
}
