//! The script's text, for cmd.exe of Windows 7 to 11 (Microsoft, "Windows Commands"): ASCII with CR LF.
//!
//! Blocks in parentheses are avoided, since cmd.exe expands the variables of a whole block before it runs it. What commands
//! print goes to files and is read from there. `ping` to the machine itself is the clock: `timeout` wants a console.

use super::commands::{self, Commands};
use super::{AGENTS, Adapter, Command, Ghost, Steps, When};
use crate::windows::draft::Version;
use crate::windows::network::settings::CLEARED;
use ipnet::IpNet;
use std::fmt::Write;
use std::net::IpAddr;

/// `pnputil /remove-device` is of Windows 10 version 2004.
const REMOVES_DEVICES: Version = Version { build: 19041, ..Version::TEN };

/// Files that a start leaves for the next one, or at its end.
pub const LEFT_BEHIND: &[&str] = &["done.json", "starts.txt", "restarted.txt"];

const HEAD: &str = r#"@echo off
rem Written by landfall. Windows runs this once, at its first start on new hardware, as the service "landfall".
rem firstboot.log and done.json beside it tell what came of it. It removes itself and the service.
setlocal DisableDelayedExpansion
set "SYS=%SystemRoot%\System32"
set "TCPIP=HKLM\SYSTEM\CurrentControlSet\Services\Tcpip\Parameters\Interfaces"
set "NETBT=HKLM\SYSTEM\CurrentControlSet\Services\NetBT\Parameters\Interfaces"
cd /d "%SystemRoot%\landfall"
set STARTS=0
if exist starts.txt set /p STARTS=<starts.txt
set /a STARTS=STARTS+1
>starts.txt echo %STARTS%
set RESULT=done
set WANTS=
rem Whoever could change this file would be the system: nobody but the system and administrators can, from now on.
"%SYS%\icacls.exe" . /inheritance:r /grant:r *S-1-5-18:(OI)(CI)F *S-1-5-32-544:(OI)(CI)F /t /q >>firstboot.log 2>&1
set ROUND=0
call :log start %STARTS% of at most 5
if %STARTS% GTR 5 goto given_up
"#;

const LOOP_HEAD: &str = r#"
:network
set /a ROUND=ROUND+1
set OPEN=
"%SYS%\route.exe" print >route.txt 2>nul
"#;

/// 120 rounds of 5 seconds: drivers are installed in this time.
const LOOP_TAIL: &str = r"
if not defined OPEN goto network_done
if %ROUND% GEQ 120 goto network_late
call :wait
goto network
:network_late
call :log adapters are missing or failed after 120 rounds
set WANTS=1
:network_done
";

const RESTART: &str = r#"
if not defined WANTS goto last
if exist restarted.txt goto last
>restarted.txt echo %STARTS%
call :log Windows is restarted once
"%SYS%\shutdown.exe" /r /t 5 /d p:2:4 >>firstboot.log 2>&1
exit /b 0
:last
"#;

const TAIL: &str = r#"
:leave
"%SYS%\ipconfig.exe" /all >>firstboot.log 2>&1
"%SYS%\reg.exe" add HKLM\SOFTWARE\landfall /v FirstStart /t REG_SZ /d %RESULT% /f >>firstboot.log 2>&1
call :log the first start ends: %RESULT%
"%SYS%\sc.exe" delete landfall >>firstboot.log 2>&1
del /q starts.txt restarted.txt route.txt getmac.txt answer.txt step*.cmd step*.rc step*.tmp step*.late 2>nul
start "landfall" /b "%SYS%\cmd.exe" /d /c "ping.exe -n 3 127.0.0.1 >nul & del /q firstboot.cmd"
exit /b 0

:given_up
call :log this is one start too many, and nothing more is tried
set RESULT=failed
>done.json echo {"result": "failed", "starts": %STARTS%}
goto leave

:log
>>firstboot.log echo %DATE% %TIME% %*
goto :eof

rem Five seconds, also where nothing answers yet.
:wait
"%SYS%\ping.exe" -n 6 127.0.0.1 >nul 2>&1
if errorlevel 1 "%SYS%\waitfor.exe" /t 5 landfall >nul 2>&1
goto :eof

rem The index of the adapter with this hardware address, as "route print" and as WMI write it.
:find
set IDX=
for /f "usebackq tokens=1-7 delims=. " %%a in ("route.txt") do if not defined IDX if /i "%%b-%%c-%%d-%%e-%%f-%%g"=="%1" set IDX=%%a
if defined IDX goto :eof
set /a LATER=ROUND %% 6
if not "%LATER%"=="0" goto :eof
call :ask "Get-WmiObject Win32_NetworkAdapter | Where-Object { $_.MACAddress -eq '%2' -and $_.NetConnectionID } | ForEach-Object { $_.InterfaceIndex }"
if defined ANSWER set "IDX=%ANSWER%"
goto :eof

rem The id of the adapter with this hardware address and the index that was found.
:identify
set GUID=
"%SYS%\getmac.exe" /fo csv /nh >getmac.txt 2>nul
set TRANSPORT=
for /f "usebackq tokens=1,2 delims=," %%a in ("getmac.txt") do if /i "%%~a"=="%1" set "TRANSPORT=%%~b"
if not defined TRANSPORT goto ask_identity
for /f "tokens=2 delims={}" %%a in ("%TRANSPORT%") do set "GUID={%%a}"
:ask_identity
if defined GUID goto :eof
call :ask "Get-WmiObject Win32_NetworkAdapter | Where-Object { $_.InterfaceIndex -eq %IDX% } | ForEach-Object { $_.GUID }"
if defined ANSWER set "GUID=%ANSWER%"
goto :eof

:ask
set ANSWER=
"%SYS%\WindowsPowerShell\v1.0\powershell.exe" -NoProfile -NonInteractive -Command %1 >answer.txt 2>>firstboot.log <nul
set /p ANSWER=<answer.txt
goto :eof

:netsh
>>firstboot.log echo netsh %*
"%SYS%\netsh.exe" %* >>firstboot.log 2>&1
goto :eof

:must
call :netsh %*
if errorlevel 1 set FAILED=1
goto :eof

:want
call :netsh %*
if errorlevel 1 set "STATE=partly"
goto :eof

:value
>>firstboot.log echo reg add %*
"%SYS%\reg.exe" add %* /f >>firstboot.log 2>&1
if errorlevel 1 set "STATE=partly"
goto :eof

rem A route, once its gateway can be reached.
:route
set TRIED=0
:route_again
set /a TRIED=TRIED+1
"%SYS%\route.exe" -p add %* >>firstboot.log 2>&1
if not errorlevel 1 goto :eof
if %TRIED% GEQ 3 exit /b 1
call :wait
goto route_again

rem Number and seconds of a step that runs by itself.
:step
if exist step%1.rc goto :eof
if exist step%1.late goto :eof
call :log step %1 begins
start "landfall" /b "%SYS%\cmd.exe" /d /c step%1.cmd
set WAITED=0
:step_waits
if exist step%1.rc goto step_ended
if %WAITED% GEQ %2 goto step_late
call :wait
set /a WAITED=WAITED+5
goto step_waits
:step_late
call :log step %1 has not ended after %2 seconds and is left alone
>step%1.late echo late
goto :eof
:step_ended
set RC=
set /p RC=<step%1.rc
call :log step %1 ended with %RC%
if "%RC%"=="3010" set WANTS=1
if "%RC%"=="1641" set WANTS=1
goto :eof

rem How a step ended.
:step_state
set "STATE=late"
set RC=
if not exist step%1.rc goto step_told
set /p RC=<step%1.rc
set "STATE=failed"
if "%RC%"=="0" set "STATE=done"
if "%RC%"=="3010" set "STATE=done"
if "%RC%"=="1641" set "STATE=done"
rem pnputil found no device for the package, or one that has a better driver: it is in the store now.
if "%RC%"=="259" set "STATE=done"
:step_told
if not "%STATE%"=="done" set RESULT=partly
goto :eof
"#;

/// The script for the steps.
pub fn main(steps: &Steps, version: Version) -> Vec<u8> {
    let mut text = String::from(HEAD);
    waiting(&mut text, steps, When::First);
    network(&mut text, steps, version);
    waiting(&mut text, steps, When::Last);
    text.push_str(RESTART);
    ghosts(&mut text, steps, version);
    marker(&mut text, steps);
    text.push_str(TAIL);
    text.replace('\n', "\r\n").into_bytes()
}

/// The script of one command, which says how it ended.
pub fn command(number: usize, command: &Command) -> Vec<u8> {
    let text = format!(
        "@echo off\ncd /d \"%SystemRoot%\\landfall\"\n{} >step{number}.log 2>&1 <nul\n>step{number}.tmp echo %ERRORLEVEL%\nmove /y step{number}.tmp step{number}.rc >nul\n",
        command.line
    );
    text.replace('\n', "\r\n").into_bytes()
}

fn waiting(text: &mut String, steps: &Steps, when: When) {
    for (at, command) in steps.commands.iter().enumerate().filter(|(_, command)| command.when == when) {
        let _ = writeln!(text, "rem {}", command.name);
        let _ = writeln!(text, "call :step {} {}", at + 1, command.seconds);
    }
}

fn network(text: &mut String, steps: &Steps, version: Version) {
    if steps.adapters.is_empty() && steps.routes.is_empty() {
        return;
    }
    for number in 1..=steps.adapters.len() {
        let _ = writeln!(text, "set STATE{number}=absent");
        let _ = writeln!(text, "set TRIES{number}=0");
        let _ = writeln!(text, "set DONE{number}=");
    }
    text.push_str(LOOP_HEAD);
    for number in 1..=steps.adapters.len() {
        let _ = writeln!(text, "if not defined DONE{number} call :adapter{number}");
    }
    text.push_str(LOOP_TAIL.strip_prefix('\n').unwrap_or(LOOP_TAIL));
    routes(text, steps);
    text.push_str("goto network_end\n");
    for (at, adapter) in steps.adapters.iter().enumerate() {
        one_adapter(text, at + 1, adapter, &commands::of(adapter, version));
    }
    text.push_str("\n:network_end\n");
}

/// `00:50:56:aa:bb:cc` as `route print` and as WMI write it.
fn spellings(mac: &str) -> String {
    format!("{} {}", mac.replace(':', "-"), mac.to_ascii_uppercase())
}

fn one_adapter(text: &mut String, number: usize, adapter: &Adapter, commands: &Commands) {
    let mut line = |line: &str| {
        text.push_str(&line.replace("{n}", &number.to_string()));
        text.push('\n');
    };
    line("\n:adapter{n}");
    line(&format!("call :find {}", spellings(&adapter.mac)));
    line("if defined IDX goto adapter{n}_found");
    line("set OPEN=1");
    line("goto :eof");
    line(":adapter{n}_found");
    line(&format!("call :log {} has index %IDX%", adapter.mac));
    line("set FAILED=");
    for netsh in &commands.must {
        line(&format!("call :must {netsh}"));
    }
    for (first, second) in &commands.either {
        line(&format!("call :netsh {first}"));
        line(&format!("if errorlevel 1 call :must {second}"));
    }
    line("if not defined FAILED goto adapter{n}_set");
    line("set STATE{n}=failed");
    line("set /a TRIES{n}=TRIES{n}+1");
    line("if %TRIES{n}% LSS 10 goto adapter{n}_again");
    line(&format!("call :log {} failed 10 times and is left alone", adapter.mac));
    line("set DONE{n}=1");
    line("set WANTS=1");
    line("goto :eof");
    line(":adapter{n}_again");
    line("set OPEN=1");
    line("goto :eof");
    line(":adapter{n}_set");
    line("set DONE{n}=1");
    line("set \"STATE=done\"");
    for netsh in &commands.soft {
        line(&format!("call :netsh {netsh}"));
    }
    for netsh in &commands.wants {
        line(&format!("call :want {netsh}"));
    }
    if !commands.values.is_empty() {
        line(&format!("call :identify {}", spellings(&adapter.mac)));
        line("if defined GUID goto adapter{n}_known");
        line("set \"STATE=partly\"");
        line("goto adapter{n}_told");
        line(":adapter{n}_known");
        for value in &commands.values {
            line(&format!("call :value {value}"));
        }
        line(":adapter{n}_told");
    }
    line("set STATE{n}=%STATE%");
    line("goto :eof");
}

fn routes(text: &mut String, steps: &Steps) {
    if steps.routes.is_empty() {
        return;
    }
    text.push_str("rem Routes of the machine. One that is there already stays, and the old one goes when the new one is there.\n");
    for (at, route) in steps.routes.iter().enumerate() {
        let number = at + 1;
        let (to, via, metric) = route.new.unwrap_or(route.old);
        let metric = metric.map(|metric| format!(" metric {metric}")).unwrap_or_default();
        let is_moved = route.new.is_some_and(|new| (new.0, new.1) != (route.old.0, route.old.1));
        if route.new.is_some() {
            let _ = writeln!(text, "call :log route {to} via {via}");
            let _ = writeln!(text, "call :route {} {via}{metric}", spelled(to));
        }
        if is_moved {
            let _ = writeln!(text, "if errorlevel 1 goto route{number}_failed");
        }
        if is_moved || route.new.is_none() {
            let _ = writeln!(
                text,
                "\"%SYS%\\route.exe\" delete {} {} >>firstboot.log 2>&1",
                spelled(route.old.0),
                route.old.1
            );
        }
        if is_moved {
            let _ = writeln!(text, "goto route{number}_end");
            let _ = writeln!(text, ":route{number}_failed\nset RESULT=partly\n:route{number}_end");
        }
    }
}

fn spelled(network: IpNet) -> String {
    format!(
        "{} mask {}",
        network.addr(),
        match network.netmask() {
            IpAddr::V4(mask) => mask,
            IpAddr::V6(_) => std::net::Ipv4Addr::BROADCAST,
        }
    )
}

/// Old adapters are taken away only when every card of the machine was found and is known by its id: one of them could be
/// the old adapter, where the hardware did not change.
fn ghosts(text: &mut String, steps: &Steps, version: Version) {
    let macs: Option<Vec<&String>> = steps.cards.iter().map(Option::as_ref).collect();
    let Some(macs) = macs.filter(|macs| !macs.is_empty() && !steps.adapters.is_empty()) else { return };
    if steps.ghosts.is_empty() {
        return;
    }
    text.push_str(
        "\nrem Adapters of the old hardware, if every card was found and none of them is one of these.\n",
    );
    text.push_str("set LIVE=\nset ROUND=6\n\"%SYS%\\route.exe\" print >route.txt 2>nul\n");
    for mac in macs {
        let _ = writeln!(text, "call :find {}", spellings(mac));
        text.push_str("if not defined IDX goto ghosts_end\n");
        let _ = writeln!(text, "call :identify {}", spellings(mac));
        text.push_str("if not defined GUID goto ghosts_end\n");
        let _ = writeln!(text, "\"%SYS%\\reg.exe\" delete \"%TCPIP%\\%GUID%\" /v {CLEARED} /f >nul 2>&1");
        text.push_str("set \"LIVE=%LIVE% %GUID%\"\n");
    }
    for (at, ghost) in steps.ghosts.iter().enumerate() {
        one_ghost(text, at + 1, ghost, version);
    }
    text.push_str("goto ghosts_end\n");
    text.push_str(
        ":is_live\nset FOUND=\nfor %%l in (%LIVE%) do if /i \"%%l\"==\"%1\" set FOUND=1\ngoto :eof\n",
    );
    text.push_str(":ghosts_end\n");
}

fn one_ghost(text: &mut String, number: usize, ghost: &Ghost, version: Version) {
    let guid = &ghost.guid;
    let _ = writeln!(text, "call :is_live {guid}");
    let _ = writeln!(text, "if defined FOUND goto ghost{number}_end");
    let _ = writeln!(text, "\"%SYS%\\reg.exe\" query \"%TCPIP%\\{guid}\" >nul 2>&1");
    let _ = writeln!(text, "if errorlevel 1 goto ghost{number}_end");
    let _ = writeln!(text, "call :log the adapter {guid} is gone");
    if let Some(device) = ghost.device.as_ref().filter(|_| version >= REMOVES_DEVICES) {
        let _ = writeln!(text, "\"%SYS%\\pnputil.exe\" /remove-device \"{device}\" >>firstboot.log 2>&1");
        let _ = writeln!(text, "if not errorlevel 1 goto ghost{number}_end");
    }
    for value in ["IPAddress", "SubnetMask", "DefaultGateway", "DefaultGatewayMetric", "NameServer"] {
        let _ = writeln!(text, "\"%SYS%\\reg.exe\" delete \"%TCPIP%\\{guid}\" /v {value} /f >nul 2>&1");
    }
    for (value, data) in [("EnableDHCP", 1), (CLEARED, 1)] {
        let _ = writeln!(
            text,
            "\"%SYS%\\reg.exe\" add \"%TCPIP%\\{guid}\" /v {value} /t REG_DWORD /d {data} /f >>firstboot.log 2>&1"
        );
    }
    let _ = writeln!(text, ":ghost{number}_end");
}

fn marker(text: &mut String, steps: &Steps) {
    text.push_str("\nrem Names of connections, and what came of all of it.\n");
    for (at, adapter) in steps.adapters.iter().enumerate() {
        let number = at + 1;
        if let Some(name) = &adapter.name {
            let mac = adapter.mac.to_ascii_uppercase();
            let _ = writeln!(
                text,
                "if not \"%STATE{number}%\"==\"absent\" call :ask \"Get-WmiObject Win32_NetworkAdapter | Where-Object {{ $_.MACAddress -eq '{mac}' -and $_.NetConnectionID -and $_.NetConnectionID -ne '{name}' }} | Set-WmiInstance -Arguments @{{ NetConnectionID = '{name}' }}\""
            );
        }
        let _ = writeln!(text, "if not \"%STATE{number}%\"==\"done\" set RESULT=partly");
    }
    for (at, command) in steps.commands.iter().enumerate() {
        let _ = writeln!(text, "call :step_state {0}\nset \"STEP{0}=%STATE%\"", at + 1);
        if let Some(installer) = &command.installer {
            let _ = writeln!(text, "if \"%STATE%\"==\"done\" del /q \"{AGENTS}\\{installer}\" 2>nul");
        }
    }
    text.push_str(">done.json echo {\"result\": \"%RESULT%\", \"starts\": %STARTS%, \"adapters\": [\n");
    for (at, adapter) in steps.adapters.iter().enumerate() {
        let number = at + 1;
        let comma = if number == steps.adapters.len() { "" } else { "," };
        let _ = writeln!(
            text,
            ">>done.json echo {{\"address\": \"{}\", \"state\": \"%STATE{number}%\"}}{comma}",
            adapter.mac
        );
    }
    text.push_str(">>done.json echo ], \"steps\": [\n");
    for (at, command) in steps.commands.iter().enumerate() {
        let number = at + 1;
        let comma = if number == steps.commands.len() { "" } else { "," };
        let _ = writeln!(
            text,
            ">>done.json echo {{\"name\": \"{}\", \"state\": \"%STEP{number}%\"}}{comma}",
            command.name
        );
    }
    text.push_str(">>done.json echo ]}\n");
}
