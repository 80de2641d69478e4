//! Counts in equal slices of time, as many as are kept and no more.

use std::collections::VecDeque;

use crate::when::Micros;

/// How wide the slices are: seconds while watching, wider for a long past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Slice of the overall rate, of which [`Scale::FINE`] are kept.
    pub fine: Micros,
    /// Slice of one cause, of which [`Scale::COARSE`] are kept.
    pub coarse: Micros,
}

impl Scale {
    pub const FINE: usize = 300;
    pub const COARSE: usize = 60;
    /// The last five minutes.
    pub const LIVE: Scale = Scale { fine: 1_000_000, coarse: 5_000_000 };

    /// Slices that hold everything from the first to the last moment.
    pub fn over(first: Micros, last: Micros) -> Scale {
        let span = last.saturating_sub(first).max(0);
        // One slice less than is kept, because the first and the last one are cut.
        let slice = |kept: usize| (span / (kept as Micros - 1) + 1).max(1_000_000);
        Scale { fine: slice(Scale::FINE), coarse: slice(Scale::COARSE) }
    }
}

#[derive(Clone, Debug)]
pub struct Series {
    width: Micros,
    /// Index of the newest slice since 1970; the ones before it lie in front.
    newest: i64,
    slices: VecDeque<u32>,
    kept: usize,
}

impl Series {
    pub fn new(width: Micros, kept: usize) -> Series {
        Series { width: width.max(1), newest: 0, slices: VecDeque::with_capacity(kept), kept: kept.max(1) }
    }

    /// Counts one; what is older than the oldest slice kept is not counted.
    pub fn add(&mut self, at: Micros) {
        let index = at.div_euclid(self.width);
        if self.slices.is_empty() {
            self.newest = index;
            self.slices.push_back(0);
        }
        // A gap longer than what is kept needs no more zeroes than that.
        let gap = (index - self.newest).clamp(0, self.kept as i64);
        for _ in 0..gap {
            if self.slices.len() == self.kept {
                self.slices.pop_front();
            }
            self.slices.push_back(0);
        }
        self.newest = self.newest.max(index);
        let back = usize::try_from(self.newest - index).unwrap_or(usize::MAX);
        while self.slices.len() <= back && self.slices.len() < self.kept {
            self.slices.push_front(0);
        }
        if let Some(slice) = self.slices.len().checked_sub(back + 1).and_then(|i| self.slices.get_mut(i)) {
            *slice = slice.saturating_add(1);
        }
    }

    /// Count of the slice with this index since 1970.
    fn slice(&self, index: i64) -> u64 {
        let Ok(back) = usize::try_from(self.newest - index) else { return 0 };
        self.slices.len().checked_sub(back + 1).and_then(|i| self.slices.get(i)).map_or(0, |n| u64::from(*n))
    }

    /// The last `columns` groups of `each` slices up to now, oldest first. Groups lie still in time, so that
    /// bars keep their height while they move.
    pub fn columns(&self, now: Micros, columns: usize, each: usize) -> Vec<u64> {
        let each = each.max(1) as i64;
        let last = now.div_euclid(self.width).div_euclid(each);
        let first = last - columns as i64 + 1;
        (first..=last).map(|group| (group * each..(group + 1) * each).map(|i| self.slice(i)).sum()).collect()
    }

    /// Count in the whole slices of the last `span` before the current one, and the current one itself.
    pub fn recent(&self, now: Micros, span: Micros) -> u64 {
        let last = now.div_euclid(self.width);
        (last - span / self.width..=last).map(|i| self.slice(i)).sum()
    }

    pub fn width(&self) -> Micros {
        self.width
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Micros = 1_000_000;

    #[test]
    fn counts_fall_into_their_slices_and_old_ones_leave() {
        let mut series = Series::new(S, 5);
        for at in [10, 10, 11, 13, 14, 14, 14] {
            series.add(at * S);
        }
        assert_eq!(series.columns(14 * S, 5, 1), [2, 1, 0, 1, 3]);
        assert_eq!(series.columns(15 * S, 3, 1), [1, 3, 0]);
        series.add(16 * S);
        series.add(11 * S); // gone already
        assert_eq!(series.columns(16 * S, 6, 1), [0, 0, 1, 3, 0, 1]);
        series.add(1_000_000 * S);
        assert_eq!(series.recent(1_000_000 * S, 60 * S), 1);
    }

    #[test]
    fn late_ones_are_counted_where_they_belong() {
        let mut series = Series::new(S, 10);
        series.add(20 * S);
        series.add(18 * S);
        assert_eq!(series.columns(20 * S, 4, 1), [0, 1, 0, 1]);
    }

    #[test]
    fn groups_lie_still_in_time() {
        let mut series = Series::new(S, 60);
        for at in 0..20 {
            series.add(at * S);
        }
        assert_eq!(series.columns(19 * S, 4, 5), [5, 5, 5, 5]);
        assert_eq!(series.columns(20 * S, 4, 5), [5, 5, 5, 0]);
        assert_eq!(series.columns(24 * S, 4, 5), [5, 5, 5, 0]);
    }

    #[test]
    fn a_long_past_fits() {
        let day = 86_400 * S;
        let scale = Scale::over(5 * day + 17, 6 * day + 3);
        let mut series = Series::new(scale.fine, Scale::FINE);
        series.add(5 * day + 17);
        series.add(6 * day + 3);
        assert_eq!(series.columns(6 * day + 3, Scale::FINE, 1).iter().sum::<u64>(), 2);
        assert_eq!(Scale::over(0, 0).fine, S);
    }
}
