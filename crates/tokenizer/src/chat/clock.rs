//! The date of `strftime_now`. It is given from outside: the same conversation at the same moment is the same text.

use std::fmt::Write;

const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// A moment on the clock on the wall, as templates may ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    year: i64,
    month: u8,
    day: u8,
    second_of_day: u32,
    days: i64,
}

impl Moment {
    /// From the seconds since the beginning of 1970, in the time of the wall clock (UTC where no zone is known).
    pub fn from_unix(seconds: i64) -> Moment {
        let days = seconds.div_euclid(86_400);
        // Days to a date in the Gregorian calendar, counted in eras of 400 years from 1 March of the year 0.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = (day_of_year - (153 * shifted_month + 2) / 5 + 1) as u8;
        let month = (if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 }) as u8;
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        Moment { year, month, day, second_of_day: seconds.rem_euclid(86_400) as u32, days }
    }

    /// `strftime` in the language of C, for what dates in prompts are made of.
    ///
    /// # Errors
    /// Names a directive that is not known.
    pub(super) fn format(&self, format: &str) -> Result<String, String> {
        if format.len() > 1_000 {
            return Err("strftime_now: the format is longer than 1,000 bytes".to_owned());
        }
        let (hour, minute, second) =
            (self.second_of_day / 3_600, self.second_of_day / 60 % 60, self.second_of_day % 60);
        let half = (hour + 11) % 12 + 1;
        // The first of January 1970 was a Thursday.
        let weekday = (self.days + 3).rem_euclid(7) as usize;
        let month = MONTHS[usize::from(self.month - 1)];
        let first = Moment::from_unix((self.days - i64::from(self.day) + 1) * 86_400).days;
        let day_of_year = self.days - first_of_year(self.year, first) + 1;
        let mut text = String::new();
        let mut characters = format.chars();
        while let Some(character) = characters.next() {
            if character != '%' {
                text.push(character);
                continue;
            }
            let (directive, padded) = match characters.next() {
                Some('-') => (characters.next(), false),
                other => (other, true),
            };
            let written = match directive {
                Some('Y') => write!(text, "{}", self.year),
                Some('y') => two(&mut text, self.year.rem_euclid(100), padded),
                Some('m') => two(&mut text, self.month.into(), padded),
                Some('d') => two(&mut text, self.day.into(), padded),
                Some('e') => write!(text, "{:2}", self.day),
                Some('H') => two(&mut text, hour.into(), padded),
                Some('I') => two(&mut text, half.into(), padded),
                Some('M') => two(&mut text, minute.into(), padded),
                Some('S') => two(&mut text, second.into(), padded),
                Some('p') => write!(text, "{}", if hour < 12 { "AM" } else { "PM" }),
                Some('B') => write!(text, "{month}"),
                Some('b' | 'h') => write!(text, "{}", &month[..3]),
                Some('A') => write!(text, "{}", WEEKDAYS[weekday]),
                Some('a') => write!(text, "{}", &WEEKDAYS[weekday][..3]),
                Some('j') if padded => write!(text, "{day_of_year:03}"),
                Some('j') => write!(text, "{day_of_year}"),
                Some('F') => write!(text, "{}-{:02}-{:02}", self.year, self.month, self.day),
                Some('T') => write!(text, "{hour:02}:{minute:02}:{second:02}"),
                Some('Z' | 'z') => Ok(()),
                Some('%') => write!(text, "%"),
                Some(other) => return Err(format!("strftime_now: `%{other}` is not known here")),
                None => return Err("strftime_now: the format ends in `%`".to_owned()),
            };
            // Writing into a text does not fail.
            let _ = written;
        }
        Ok(text)
    }
}

fn two(text: &mut String, number: i64, padded: bool) -> std::fmt::Result {
    if padded { write!(text, "{number:02}") } else { write!(text, "{number}") }
}

/// Days since 1970 to the first of January of the year, from the first of any of its months.
fn first_of_year(year: i64, first_of_month: i64) -> i64 {
    let mut day = first_of_month;
    while Moment::from_unix((day - 1) * 86_400).year == year {
        day -= 1;
    }
    day
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let check = |seconds, format: &str, expected: &str| {
            assert_eq!(Moment::from_unix(seconds).format(format).unwrap(), expected);
        };
        check(0, "%A %d %B %Y %H:%M:%S %j", "Thursday 01 January 1970 00:00:00 001");
        check(1_773_039_904, "%a %-d %b %y %I %p %F %T", "Mon 9 Mar 26 07 AM 2026-03-09 07:05:04");
        check(951_782_399, "%Y-%m-%d %j", "2000-02-28 059");
        check(951_782_400, "%Y-%m-%d %e|%-m%%", "2000-02-29 29|2%");
        check(978_220_800, "%d.%m.%Y %j %a", "31.12.2000 366 Sun");
        check(-1, "%F %T", "1969-12-31 23:59:59");
        assert!(Moment::from_unix(0).format("%Q").unwrap_err().contains("%Q"));
        assert!(Moment::from_unix(0).format("%").is_err());
    }
}
