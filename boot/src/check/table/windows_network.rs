//! Findings of the network of Windows guests and of their first start.

use super::super::{Explanation, Severity};

pub(super) const ROWS: &[Explanation] = &[
    Explanation {
        id: "windows-first-start",
        severity: Severity::Notes,
        text: "What only the running Windows can do, it does at its first start on the new hardware: a service starts \
               a script, which sets up adapters and runs installers, restarts Windows at most once and removes \
               itself. What came of it is in the files done.json and firstboot.log of the folder landfall below that \
               of Windows. The event log says that the service did not start (7000, 7009), since it is no program for \
               services; software that watches for intruders may report it for the same reason. Look into done.json \
               before the machine is handed over.",
    },
    Explanation {
        id: "windows-nic-ambiguous",
        severity: Severity::Warns,
        text: "Windows knows several adapters with the hardware address of one card, and nothing tells which of them \
               is there now: the others are left of earlier hardware. Their settings differ, so none of them is given \
               to the card. Remove those that are gone in the source's Device Manager (hidden devices), or set the \
               addresses on the target.",
    },
    Explanation {
        id: "windows-nic-by-order",
        severity: Severity::Notes,
        text: "Windows keeps no hardware address for these adapters, so they were given to the cards in the order of \
               their slots. If the order was another one, their addresses are exchanged. Compare with `getmac /v` on \
               the source.",
    },
    Explanation {
        id: "windows-nic-gone",
        severity: Severity::Notes,
        text: "An adapter has addresses of its own, and the machine's definition has no card with its hardware \
               address. Mostly it is left of earlier hardware; it is taken away at the first start. If the card was \
               forgotten, add it to the definition.",
    },
    Explanation {
        id: "windows-nic-protocol-off",
        severity: Severity::Notes,
        text: "IPv6 is unbound from an adapter. Windows binds it to every new adapter, and undoing that has no \
               command that all versions know. Switch it off on the target where it matters.",
    },
    Explanation {
        id: "windows-nic-name",
        severity: Severity::Notes,
        text: "A connection's name has characters that mean something to a command, so it is not restored: the new \
               adapter keeps the name that Windows gives it. Addresses are set by its index and not concerned. Rename \
               it by hand where a program goes by the name.",
    },
    Explanation {
        id: "windows-nic-no-mac",
        severity: Severity::Warns,
        text: "An adapter has settings of its own, and its card has no hardware address in the definition, so the \
               target gives it one that is not known yet. The first start finds adapters by nothing else. Put the \
               address that the card has on the source into the definition.",
    },
    Explanation {
        id: "windows-nic-own-address",
        severity: Severity::Warns,
        text: "In the settings of the old card's driver a person gave the adapter a hardware address of its own. That \
               belongs to the driver, and another card has another. Licences and DHCP reservations may go by it: give \
               the target's card this address.",
    },
    Explanation {
        id: "windows-nic-renewed",
        severity: Severity::Warns,
        text: "The target gives every card a new hardware address and the machine its addresses by DHCP, so what the \
               adapters had of their own stays behind. Reserve the same addresses for the machine in the platform's \
               settings where others know it by them.",
    },
    Explanation {
        id: "windows-nic-unmatched",
        severity: Severity::Warns,
        text: "An adapter has addresses of its own, and nothing on the disks or in the definition tells which card it \
               is on. They were not given to a card that might be the wrong one. Set them by hand, or name the cards' \
               hardware addresses in the definition as the source has them.",
    },
    Explanation {
        id: "windows-nic-unread",
        severity: Severity::Warns,
        text: "A value of the network settings is not what Windows writes there, and was left out. Look at the \
               source's settings, and set it on the target by hand.",
    },
    Explanation {
        id: "windows-nic-virtual",
        severity: Severity::Warns,
        text: "A team of cards (LBFO) or a virtual switch in the guest stands on cards by ids that Windows makes anew \
               on other hardware. It comes up without a card, and its addresses with it. Build it anew on the target. \
               A team inside a virtual machine is mostly better left to the hypervisor.",
    },
    Explanation {
        id: "windows-readdress-address-stays",
        severity: Severity::Warns,
        text: "An address of the machine itself is covered by no rule of the network map, which moves others, and was \
               left as it is. At the other site the adapter would have the address of the old one. Add a rule; one \
               that turns a subnet into itself says that it is the same at both sites.",
    },
    Explanation {
        id: "windows-readdress-chain",
        severity: Severity::Warns,
        text: "The network map moves an address to one that the same map would move on, as when networks change \
               places. One pass is right, and a second pass over its result would not be. Do not apply the map to a \
               machine that it was applied to.",
    },
    Explanation {
        id: "windows-readdress-duplicate",
        severity: Severity::Blocks,
        text: "By the network map two addresses of the machine would become the same one. Nothing is written. Give \
               one of them an address of its own in the map, with a rule for the single address.",
    },
    Explanation {
        id: "windows-readdress-gateway",
        severity: Severity::Warns,
        text: "A gateway was in the network of its adapter, and by the network map it will be in none of the \
               adapter's networks, so nothing is reached over it. Give the rule with the gateway the subnets that it \
               is for, and each other network a rule of its own.",
    },
    Explanation {
        id: "windows-readdress-left",
        severity: Severity::Notes,
        text: "An address that the network map covers stands in a place that is not edited: on an adapter of software \
               (loopback, VPN, team), or in another machine's line of drivers\\etc\\hosts. It was left as it is. Look \
               whether it has to change at the other site.",
    },
    Explanation {
        id: "windows-readdress-no-room",
        severity: Severity::Blocks,
        text: "The network map turns a subnet into a smaller one, in which the number of this host does not exist or \
               is the broadcast address. Nothing is written. Give the address a rule of its own, or the subnet a \
               larger one.",
    },
    Explanation {
        id: "windows-readdress-rule-unused",
        severity: Severity::Notes,
        text: "A rule of the network map is for cards in a network or for connections of a name, and this machine has \
               none of them, so the rule does nothing here. That is right for a map of many machines. Compare the \
               rule with what `landfall inspect` lists.",
    },
    Explanation {
        id: "windows-readdress-scope",
        severity: Severity::Notes,
        text: "The network map is applied to the adapters' settings, the machine's routes and the machine's own lines \
               in drivers\\etc\\hosts. Addresses in the configuration of services, databases, firewalls and \
               applications are out of its scope. Search for the old addresses there.",
    },
    Explanation {
        id: "windows-readdress-unclear",
        severity: Severity::Warns,
        text: "The whole machine has one setting, such as the list of DNS suffixes, for which the network map gives \
               several values. The last one was taken. Give the machine's own in a rule without network and \
               interface.",
    },
    Explanation {
        id: "windows-readdress-unmapped",
        severity: Severity::Notes,
        text: "An address in the network settings is covered by no rule of the network map and was left as it is. \
               That is right for what is the same at both sites, such as a public name server. Add a rule to the map \
               if it is not.",
    },
    Explanation {
        id: "windows-readdress-unplaced",
        severity: Severity::Notes,
        text: "The network map gives a value for which the guest has no place; mostly DHCP gives it. Values are \
               replaced, not invented: where nothing is configured nothing is added. Set it on the target if it is \
               needed.",
    },
];
