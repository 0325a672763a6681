//! `landfall alarms`

use super::Run;
use super::shown::count;
use super::status::{alarm_text, alarms_text};
use crate::cli::args::AlarmsArgs;
use crate::report::VERSION;
use crate::report::api::{Alarms, Change, Event};
use landfall_image::Result;

/// Shows what is wrong; 1 where something is.
pub fn run(run: &Run<'_>, args: &AlarmsArgs) -> Result<u8> {
    let service = run.service(&args.at)?;
    let status = service.status()?;
    let history = args.history.map(|at_most| service.events(at_most)).transpose()?;
    let alarms = Alarms {
        version: VERSION,
        alarms: status.alarms.clone(),
        history: history.map(|history| history.events),
    };
    run.show(&alarms, |alarms| {
        let now: Vec<_> = alarms.alarms.iter().collect();
        let mut out = match now.is_empty() {
            true => "No alarm is on.\n".to_owned(),
            false => alarms_text(&now, &status).trim_start().to_owned(),
        };
        if let Some(history) = &alarms.history {
            out.push_str(&format!(
                "\n{} that began or ended, the newest first\n",
                count(history.len(), "alarm")
            ));
            history.iter().for_each(|event| out.push_str(&event_text(event)));
        }
        out
    })?;
    Ok(u8::from(!alarms.alarms.is_empty()))
}

fn event_text(event: &Event) -> String {
    match event.change {
        Change::Began => alarm_text(&event.alarm, &format!("began {}", event.at)),
        Change::Ended => {
            let machine =
                event.alarm.machine.as_ref().map(|machine| format!("{machine}, ")).unwrap_or_default();
            format!("  over      {machine}{} [{}]\n", event.at, event.alarm.id)
        }
    }
}
