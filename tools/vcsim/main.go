// A vCenter or an ESXi host to test against: VMware's own simulator (govmomi's package simulator, of Debian's
// golang-github-vmware-govmomi-dev), with a server of its own around it.
//
//	vcsim [-esx] -folder FOLDER -user USER -password PASSWORD
//
// Listens on a free port of 127.0.0.1, with TLS and a certificate made for it. Into FOLDER it writes `cert.pem` and, when it
// is ready, `address`. What is sent to a lease is kept in FOLDER/nfc, which the simulator alone would throw away. Faults, while
// the file is there: FOLDER/lease-fault lets every lease end in an error.
package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"flag"
	"html"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// certificate makes one for the address that is listened on, with which nobody but its file vouches for.
func certificate(folder string) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	template := x509.Certificate{
		SerialNumber:          big.NewInt(time.Now().UnixNano()),
		Subject:               pkix.Name{CommonName: "vcsim"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		DNSNames:              []string{"localhost"},
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	check(err)
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	check(os.WriteFile(filepath.Join(folder, "cert.pem"), text, 0600))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// leaseFault is what a lease says of itself that ended in an error.
const leaseFault = `<propSet><name>error</name><val xmlns:XMLSchema-instance="http://www.w3.org/2001/XMLSchema-instance"
 XMLSchema-instance:type="LocalizedMethodFault"><fault XMLSchema-instance:type="NoDiskSpace"><datastore>LocalDS_0</datastore>
</fault><localizedMessage>Insufficient disk space on datastore 'LocalDS_0'.</localizedMessage></val></propSet></objects>`

// sdk lets the simulator answer, and sees to what it leaves out: a machine that is registered has the devices of its .vmx, a
// lease ends in an error on demand.
func sdk(service *simulator.Service, folder string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		request, err := io.ReadAll(r.Body)
		check(err)
		r.Body = io.NopCloser(bytes.NewReader(request))
		if path := registered.FindSubmatch(request); path != nil {
			// The simulator looks for two files that a machine has once it has run.
			for _, name := range []string{html.UnescapeString(string(path[3])) + ".nvram", "vmware.log"} {
				kept := filepath.Join(datastore(string(path[1])), html.UnescapeString(string(path[2])), name)
				check(os.WriteFile(kept, nil, 0600))
			}
		}
		answer := httptest.NewRecorder()
		service.ServeSDK(answer, r)
		text := answer.Body.Bytes()
		_, err = os.Stat(filepath.Join(folder, "lease-fault"))
		if err == nil && bytes.Contains(request, []byte("type=\"HttpNfcLease\"")) {
			text = bytes.ReplaceAll(text, []byte(">ready<"), []byte(">error<"))
			text = bytes.ReplaceAll(text, []byte("</objects>"), []byte(leaseFault))
		}
		if bytes.Contains(request, []byte("<RegisterVM_Task")) {
			for _, found := range simulator.Map.All("VirtualMachine") {
				furnish(found.(*simulator.VirtualMachine))
			}
		}
		for name, values := range answer.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(text)
	}
}

var setting = regexp.MustCompile(`(?m)^(\S+) = "(.*)"$`)
var registered = regexp.MustCompile(`(?s)<RegisterVM_Task.*<path>\[(\w+)\] (.*)/[^/]*</path>\s*<name>(.*)</name>`)
var extent = regexp.MustCompile(`(?m)^RW (\d+) `)

// datastore is the folder that a datastore is here.
func datastore(name string) string {
	for _, found := range simulator.Map.All("Datastore") {
		if datastore := found.(*simulator.Datastore); datastore.Name == name {
			return datastore.Info.GetDatastoreInfo().Url
		}
	}
	return ""
}

// furnish gives a machine what its .vmx says, where that names a hardware address and the machine has no such card yet.
func furnish(vm *simulator.VirtualMachine) {
	var at object.DatastorePath
	at.FromString(vm.Config.Files.VmPathName)
	folder := datastore(at.Datastore)
	definition, err := os.ReadFile(filepath.Join(folder, at.Path))
	if err != nil || !bytes.Contains(definition, []byte("ethernet0.address = ")) {
		return
	}
	devices := object.VirtualDeviceList(vm.Config.Hardware.Device)
	if len(devices.SelectByType((*types.VirtualEthernetCard)(nil))) > 0 {
		return
	}
	controller, err := devices.CreateSCSIController("pvscsi")
	check(err)
	added := object.VirtualDeviceList{controller}
	spec := types.VirtualMachineConfigSpec{}
	for _, line := range setting.FindAllStringSubmatch(string(definition), -1) {
		key, value := line[1], line[2]
		switch {
		case strings.HasSuffix(key, ".fileName"):
			text, err := os.ReadFile(filepath.Join(folder, filepath.Dir(at.Path), value))
			check(err)
			sectors, err := strconv.ParseInt(extent.FindStringSubmatch(string(text))[1], 10, 64)
			check(err)
			disk := devices.CreateDisk(controller.(types.BaseVirtualController), types.ManagedObjectReference{}, "")
			disk.CapacityInKB = sectors / 2
			disk.Backing = &types.VirtualDiskFlatVer2BackingInfo{}
			added = append(added, disk)
		case key == "ethernet0.address":
			card, err := devices.CreateEthernetCard("vmxnet3", &types.VirtualEthernetCardNetworkBackingInfo{})
			check(err)
			card.(types.BaseVirtualEthernetCard).GetVirtualEthernetCard().MacAddress = value
			added = append(added, card)
		case key == "uuid.bios":
			digits := strings.NewReplacer(" ", "", "-", "").Replace(value)
			spec.Uuid = digits[:8] + "-" + digits[8:12] + "-" + digits[12:16] + "-" + digits[16:20] + "-" + digits[20:]
		}
	}
	vm.Config.Uuid = spec.Uuid
	vm.Config.Hardware.Device = append(vm.Config.Hardware.Device, added...)
}

func main() {
	esx := flag.Bool("esx", false, "be a host, not a vCenter")
	folder := flag.String("folder", "", "where files are kept")
	user := flag.String("user", "root", "who may log in")
	password := flag.String("password", "", "with what")
	flag.Parse()

	model := simulator.VPX()
	if *esx {
		model = simulator.ESX()
	}
	defer model.Remove()
	check(model.Create())
	model.Service.TLS = &tls.Config{Certificates: []tls.Certificate{certificate(*folder)}}
	model.Service.Listen = &url.URL{Host: "127.0.0.1:0", User: url.UserPassword(*user, *password)}
	kept := filepath.Join(*folder, "nfc")
	check(os.MkdirAll(kept, 0700))
	// More exact than the simulator's own pattern, which it takes the place of.
	model.Service.HandleFunc("127.0.0.1/nfc/", func(w http.ResponseWriter, r *http.Request) {
		file, err := os.Create(filepath.Join(kept, filepath.Base(r.URL.Path)))
		check(err)
		defer file.Close()
		r.Body = io.NopCloser(io.TeeReader(r.Body, file))
		simulator.ServeNFC(w, r)
	})
	model.Service.HandleFunc("127.0.0.1/sdk", sdk(model.Service, *folder))
	server := model.Service.NewServer()
	defer server.Close()
	part := filepath.Join(*folder, ".address")
	check(os.WriteFile(part, []byte(server.URL.Host), 0600))
	check(os.Rename(part, filepath.Join(*folder, "address")))
	// It ends with whoever started it: when its standard input does.
	_, _ = io.Copy(io.Discard, os.Stdin)
}
