//! `--watch`: looks again and again, until what is watched has ended or Ctrl-C.
//!
//! In a terminal the newest look takes the place of the one before. Elsewhere, and with `--json`, what has changed
//! follows what was.

use super::{
    Failure, Outcome,
    client::Changes,
    output::{Frame, framed, plain, put},
};
use console::{Term, truncate_str};
use std::time::Duration;

/// Seconds between two looks where none are given and no change is told of.
pub(super) const SECONDS_DEFAULT: &str = "2";
/// Longest time between two looks in seconds.
const SECONDS_MAX: u32 = 86_400;
/// A server that is being restarted is asked again this often.
const LOST_MAX: u32 = 100;
/// Between two of these.
const LOST_PAUSE: Duration = Duration::from_secs(2);

/// The value of `--watch`.
pub(super) fn seconds(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(seconds @ 1..=SECONDS_MAX) => Ok(seconds),
        _ => Err(format!(
            "{text:?} is no number of seconds from 1 to {SECONDS_MAX}; without a number, --watch stands last"
        )),
    }
}

/// Where looks go.
trait Screen {
    /// Shows a look; `remark` says what is wrong at the moment. False where nobody looks any more.
    fn show(&mut self, frame: &str, remark: &str) -> Result<bool, Failure>;
}

/// Looks every `every`, and when `changes` says that there is something to see.
pub(super) fn run(every: Duration, mut changes: Changes, json: bool, look: impl Fn() -> Outcome) -> Outcome {
    let terminal = Term::stdout();
    if !json && terminal.is_term() {
        follow(&mut Redrawn { terminal, began: false }, || framed(&look), |_| changes.wait(every))
    } else {
        let wait = |lost| if lost { std::thread::sleep(LOST_PAUSE) } else { changes.wait(every) };
        follow(&mut Appended { last: String::new() }, || framed(&look), wait)
    }
}

/// Looks until the end; `wait` is told whether the server was lost.
fn follow(
    screen: &mut impl Screen,
    look: impl Fn() -> Result<Frame, Failure>,
    mut wait: impl FnMut(bool),
) -> Outcome {
    let mut last = look()?;
    let mut lost = 0;
    let mut read = screen.show(&last.text, "")?;
    while read && !last.ended {
        wait(lost > 0);
        read = match look() {
            Ok(frame) => {
                (last, lost) = (frame, 0);
                screen.show(&last.text, "")?
            }
            Err(Failure::Failed(why)) if lost < LOST_MAX => {
                lost += 1;
                screen.show(&last.text, &why)?
            }
            Err(error) => return Err(error),
        };
    }
    Ok(())
}

/// The terminal's screen.
#[derive(Debug)]
struct Redrawn {
    terminal: Term,
    began: bool,
}

impl Screen for Redrawn {
    fn show(&mut self, frame: &str, remark: &str) -> Result<bool, Failure> {
        let home = if self.began { "\u{1b}[H" } else { "\u{1b}[2J\u{1b}[H" };
        self.began = true;
        put(&format!("{home}{}\u{1b}[J", fitted(frame, remark, self.terminal.size())))
    }
}

/// What fits on a screen of so many lines and columns, each line with what clears the rest of it.
fn fitted(frame: &str, remark: &str, (lines, columns): (u16, u16)) -> String {
    let columns = usize::from(columns).max(1);
    let room = usize::from(lines).saturating_sub(2 + usize::from(!remark.is_empty())).max(1);
    let (all, mut text) = (frame.lines().count(), String::new());
    let shown = if all > room { room - 1 } else { all };
    for line in frame.lines().take(shown) {
        text.extend([&*truncate_str(line, columns, "…"), "\u{1b}[K\n"]);
    }
    if all > shown {
        text.push_str(&format!("… {} lines more\u{1b}[K\n", all - shown));
    }
    if !remark.is_empty() {
        text.extend([&*truncate_str(&plain(remark, false), columns, "…"), "\u{1b}[K\n"]);
    }
    text
}

/// A file, a pipe, or a program that reads.
#[derive(Debug)]
struct Appended {
    last: String,
}

impl Screen for Appended {
    fn show(&mut self, frame: &str, remark: &str) -> Result<bool, Failure> {
        if !remark.is_empty() {
            eprintln!("{}", plain(remark, false));
        }
        if frame == self.last {
            return Ok(true);
        }
        frame.clone_into(&mut self.last);
        put(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[derive(Default)]
    struct Seen(Vec<(String, String)>);

    impl Screen for Seen {
        fn show(&mut self, frame: &str, remark: &str) -> Result<bool, Failure> {
            self.0.push((frame.to_owned(), remark.to_owned()));
            Ok(frame != "the reader has gone")
        }
    }

    fn looks(of: &[Result<(&str, bool), Failure>]) -> (Seen, Outcome) {
        let (mut seen, at) = (Seen::default(), Cell::new(0));
        let look = || {
            let look = &of[at.get()];
            at.set(at.get() + 1);
            match look {
                Ok((text, ended)) => Ok(Frame { text: (*text).to_owned(), ended: *ended }),
                Err(error) => Err(error.clone()),
            }
        };
        let outcome = follow(&mut seen, look, |_| {});
        (seen, outcome)
    }

    #[test]
    fn it_ends_with_what_is_watched() {
        let (seen, outcome) = looks(&[Ok(("a", false)), Ok(("b", true))]);
        assert_eq!(outcome, Ok(()));
        assert_eq!(seen.0.len(), 2);
    }

    #[test]
    fn it_ends_when_nobody_reads_any_more() {
        let (seen, outcome) = looks(&[Ok(("a", false)), Ok(("the reader has gone", false))]);
        assert_eq!((seen.0.len(), outcome), (2, Ok(())));
    }

    #[test]
    fn a_server_that_is_away_for_a_while_is_waited_for() {
        let away = || Err(Failure::Failed("away".to_owned()));
        let (seen, outcome) = looks(&[Ok(("a", false)), away(), away(), Ok(("b", true))]);
        assert_eq!(outcome, Ok(()));
        assert_eq!(seen.0[1], ("a".to_owned(), "away".to_owned()));
        assert_eq!(looks(&[away()]).1, away().map(|_| ()));
    }

    #[test]
    fn what_is_not_there_any_more_ends_it_as_an_error() {
        for gone in [Failure::Usage("gone".to_owned()), Failure::Refused("your session ended".to_owned())] {
            let (_, outcome) = looks(&[Ok(("a", false)), Err(gone.clone())]);
            assert_eq!(outcome, Err(gone));
        }
    }

    #[test]
    fn a_look_fits_the_screen() {
        let frame: String = (0..100).map(|n| format!("{n}\n")).collect();
        let text = fitted(&frame, "away", (10, 80));
        assert!(
            text.lines().count() < 10 && text.contains("… 94 lines more") && text.contains("away"),
            "{text}"
        );
        assert_eq!(fitted("a\n", "", (10, 80)), "a\u{1b}[K\n");
        assert_eq!(fitted("abcdef\n", "", (10, 4)), "abc…\u{1b}[K\n");
        assert!(fitted(&frame, "", (1, 80)).contains("lines more"));
    }

    #[test]
    fn seconds_are_a_number() {
        assert_eq!(seconds("5"), Ok(5));
        for bad in ["0", "-1", "86401", "cam-01", ""] {
            assert!(seconds(bad).unwrap_err().contains("--watch stands last"), "{bad}");
        }
    }
}
