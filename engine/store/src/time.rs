//! Points in time as text: RFC 3339 in UTC, as Docker writes them, and "3 minutes ago".

const DAY_SECONDS: i64 = 86_400;

/// The civil date of a day count since 1970-01-01 (proleptic Gregorian calendar; the year is cut into
/// eras of 400 years that start in March, so that the leap day is the last of its year).
fn civil_date(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// `2024-05-01T12:00:00.123456789Z` of nanoseconds since 1970.
pub fn rfc3339(unix_ns: i64) -> String {
    let seconds = unix_ns.div_euclid(1_000_000_000);
    let nanoseconds = unix_ns.rem_euclid(1_000_000_000);
    let (year, month, day) = civil_date(seconds.div_euclid(DAY_SECONDS));
    let second_of_day = seconds.rem_euclid(DAY_SECONDS);
    let (hour, minute, second) =
        (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanoseconds:09}Z")
}

/// Nanoseconds since 1970 now; 0 if the clock stands before that.
pub fn now_unix_ns() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_nanos()).ok())
        .unwrap_or(0)
}

/// How long ago a point in time is, roughly: `5 seconds ago`, `2 hours ago`.
pub fn ago(unix_ns: i64, now_unix_ns: i64) -> String {
    let seconds = now_unix_ns.saturating_sub(unix_ns).max(0) / 1_000_000_000;
    let (count, unit) = match seconds {
        0 => return "just now".to_owned(),
        1..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..DAY_SECONDS => (seconds / 3600, "hour"),
        DAY_SECONDS..1_209_600 => (seconds / DAY_SECONDS, "day"),
        1_209_600..5_184_000 => (seconds / 604_800, "week"),
        5_184_000..63_072_000 => (seconds / 2_592_000, "month"),
        _ => (seconds / 31_536_000, "year"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        for (unix_ns, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400_000_000_001, "2000-02-29T00:00:00.000000001Z"),
            (1_709_251_199_999_999_999, "2024-02-29T23:59:59.999999999Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
            (i64::MAX, "2262-04-11T23:47:16.854775807Z"),
        ] {
            assert_eq!(rfc3339(unix_ns), text);
        }
    }

    #[test]
    fn ages_are_rough() {
        let second = 1_000_000_000;
        for (age, text) in [
            (0, "just now"),
            (1, "1 second ago"),
            (59, "59 seconds ago"),
            (3600, "1 hour ago"),
            (200_000, "2 days ago"),
            (-5, "just now"),
        ] {
            assert_eq!(ago(0, age * second), text);
        }
    }
}
