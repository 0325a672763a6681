//! Findings about drivers that Windows guests are given.

use super::super::{Explanation, Severity};

pub(super) const ROWS: &[Explanation] = &[
    Explanation {
        id: "windows-driver-altered",
        severity: Severity::Warns,
        text: "The catalogue (.cat) of a driver package holds the hashes of its files and is what is \
               signed. A file that is not listed was changed afterwards, and Windows may refuse to load the \
               driver or to install the package. Fetch virtio-win again and compare its checksum. A driver \
               that you signed yourself is taken where the guest is set to do so.",
    },
    Explanation {
        id: "windows-driver-nearest",
        severity: Severity::Notes,
        text: "A folder of virtio-win is for one version of Windows. Where there is none for the guest's, or \
               its build is newer than those that landfall knows, the driver of the nearest older one is \
               taken: Windows keeps loading these, and the INF file says whether it is for the guest. Fetch \
               a newer virtio-win if the device does not start.",
    },
    Explanation {
        id: "windows-driver-newer",
        severity: Severity::Notes,
        text: "The guest has a newer version of the driver than virtio-win holds. The newer one stays, and \
               is made to start where the machine starts from its disk. Nothing needs to be done.",
    },
    Explanation {
        id: "windows-driver-signing",
        severity: Severity::Warns,
        text: "Windows 7 and Server 2008 R2 load drivers that are signed with SHA-2 only with an update of \
               2015 (KB3033929) or 2019 (KB4474419), and stop at the start without it. The driver is not \
               installed, and the machine gets devices that Windows has drivers for. Install KB4474419 at \
               the source and convert again to have the faster devices.",
    },
    Explanation {
        id: "windows-driver-unusable",
        severity: Severity::Warns,
        text: "A driver was not found in virtio-win, or its package is not whole: the INF file must be for \
               this Windows, every file that it names must be there, the catalogue (.cat) must be one, and \
               the program must be for the guest's processor. Nothing of the driver is installed, and the \
               machine gets devices that Windows has drivers for. Name a complete virtio-win folder or ISO \
               image with --virtio-win.",
    },
    Explanation {
        id: "windows-no-virtio-win",
        severity: Severity::Warns,
        text: "Windows has no drivers for virtio devices of its own. Without a virtio-win folder or ISO \
               image the machine gets an AHCI controller and an e1000e network card, which Windows has \
               drivers for and which are slower. Name virtio-win with --virtio-win to have virtio devices \
               from the first start.",
    },
    Explanation {
        id: "windows-too-old-for-virtio",
        severity: Severity::Warns,
        text: "Windows 2000, XP and Server 2003 install drivers in ways of their own, and virtio-win has \
               none for them any more. landfall installs no virtio drivers there. Give the machine IDE \
               disks and an rtl8139 or e1000 network card, and install drivers in the running guest where \
               they are needed.",
    },
];
