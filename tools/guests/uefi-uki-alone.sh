# As uefi-uki, without systemd-boot: the image lies where every firmware looks.
. "$tools/guests/uefi-uki.sh"
alone=yes
