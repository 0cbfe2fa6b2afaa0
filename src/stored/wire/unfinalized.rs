//! The wire types of a timeline's unfinalized events: entries, anchors and corrections.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::origin::{Hidden, Origin, Properties, WireOrigin, pairs, read_pairs};
use super::session::WireLate;
use super::{IdHalf, after};
use crate::model::{Counts, Entry, Kind};
use crate::session::{EventId, Millis, SessionContext};
use crate::stored::string_table::{StringIndex, StringTable, StringTableReader};
use crate::stored::{FormatError, id_half, id_of};
use crate::timeline::{Correction, SessionAnchor};

/// An unfinalized event.
#[derive(Serialize, Deserialize)]
pub(super) struct WireEntry {
    /// The time since the entry before; for the first entry, since 1970.
    gap_ms: u64,
    uuid: WireUuid,
    kind: WireKind,
    url: StringIndex,
    referrer: StringIndex,
    /// The index of its campaign, device and location in the timeline's origins.
    origin_index: u32,
    click: Option<[u8; 8]>,
    properties: Vec<(StringIndex, StringIndex)>,
}

/// An event's id: 16 bytes for a UUID in canonical form, else a string.
#[derive(Serialize, Deserialize)]
pub(super) enum WireUuid {
    Bits([u8; 16]),
    String(StringIndex),
}

/// The kind of an entry. The order is part of the stored form.
#[derive(Serialize, Deserialize, Clone, Copy)]
pub(super) enum WireKind {
    Pageview,
    Event,
    Touch,
    End,
    KeepAlive,
}

/// An anchor.
#[derive(Serialize, Deserialize)]
pub(super) struct WireAnchor {
    entry: u32,
    id: IdHalf,
    is_primary: bool,
    version: u64,
    late: WireLate,
}

/// A correction. The order is part of the stored form.
#[derive(Serialize, Deserialize)]
pub(super) enum WireCorrection {
    Merged { from: IdHalf, into: IdHalf, version: u64 },
    Split { from: IdHalf, into: IdHalf, at: Millis, uuid: StringIndex, version: u64 },
}

/// Returns the UUID, if this id is one in canonical form: lower case, with hyphens. Returns `None` for any other id.
pub(super) fn canonical(uuid: &str) -> Option<Uuid> {
    let bits = Uuid::try_parse(uuid).ok()?;
    let mut buffer = Uuid::encode_buffer();
    (*bits.hyphenated().encode_lower(&mut buffer) == *uuid).then_some(bits)
}

impl WireEntry {
    pub(super) fn write(
        entry: &Entry,
        late_counts: &Counts,
        before: Millis,
        origins: &mut Vec<WireOrigin>,
        strings: &StringTable<'_>,
    ) -> Self {
        let context = &entry.context;
        let origin =
            WireOrigin::write(context.utm.as_deref(), context.device.as_deref(), context.geo.as_deref(), strings);
        let origin_index = origins.iter().position(|known| *known == origin).unwrap_or_else(|| {
            origins.push(origin);
            origins.len() - 1
        });
        Self {
            gap_ms: entry.at.abs_diff(before),
            uuid: WireUuid::write(&entry.uuid, strings),
            kind: WireKind::write(entry.kind),
            url: strings.index_of(context.url.as_deref()),
            referrer: strings.index_of(context.referrer.as_deref()),
            origin_index: origin_index as u32,
            click: entry.click.map(u64::to_be_bytes),
            properties: pairs(
                entry.properties.iter().map(|(key, value)| (key, value)).chain(late_counts),
                Hidden { user_id: context.user_id.as_deref(), ended_by: None },
                strings,
            ),
        }
    }

    pub(super) fn read(
        &self,
        before: Millis,
        origins: &[Origin],
        strings: &StringTableReader,
    ) -> Result<Entry, FormatError> {
        let origin =
            origins.get(self.origin_index as usize).ok_or(FormatError::Rule("an entry's context is not there"))?;
        let (utm, device, geo) = origin.clone();
        let Properties { own, user_id, .. } = read_pairs(&self.properties, strings)?;
        Ok(Entry {
            at: after(before, self.gap_ms)?,
            uuid: self.uuid.read(strings)?,
            kind: self.kind.read(),
            context: SessionContext {
                url: strings.get(self.url)?,
                referrer: strings.get(self.referrer)?,
                utm,
                device,
                geo,
                user_id,
            },
            click: self.click.map(u64::from_be_bytes),
            properties: own,
        })
    }
}

impl WireUuid {
    pub(super) fn write(id: &EventId, strings: &StringTable<'_>) -> Self {
        match canonical(id) {
            Some(bits) => Self::Bits(bits.into_bytes()),
            None => Self::String(strings.index_of(Some(id))),
        }
    }

    pub(super) fn read(&self, strings: &StringTableReader) -> Result<EventId, FormatError> {
        let mut buffer = Uuid::encode_buffer();
        Ok(match self {
            Self::Bits(bits) => EventId::new(Uuid::from_bytes(*bits).hyphenated().encode_lower(&mut buffer)),
            Self::String(index) => EventId::new(&strings.require(*index)?),
        })
    }
}

impl WireKind {
    pub(super) fn write(kind: Kind) -> Self {
        match kind {
            Kind::Pageview => Self::Pageview,
            Kind::Event => Self::Event,
            Kind::Touch => Self::Touch,
            Kind::End => Self::End,
            Kind::KeepAlive => Self::KeepAlive,
        }
    }

    pub(super) fn read(self) -> Kind {
        match self {
            Self::Pageview => Kind::Pageview,
            Self::Event => Kind::Event,
            Self::Touch => Kind::Touch,
            Self::End => Kind::End,
            Self::KeepAlive => Kind::KeepAlive,
        }
    }
}

impl WireCorrection {
    pub(super) fn write(correction: &Correction, strings: &StringTable<'_>) -> Self {
        match correction {
            Correction::Merged { from, into, version } => {
                Self::Merged { from: id_half(*from), into: id_half(*into), version: *version }
            }
            Correction::Split { from, into, at, uuid, version } => Self::Split {
                from: id_half(*from),
                into: id_half(*into),
                at: *at,
                uuid: strings.index_of(Some(uuid)),
                version: *version,
            },
        }
    }

    pub(super) fn read(&self, strings: &StringTableReader, bits: u64) -> Result<Correction, FormatError> {
        Ok(match *self {
            Self::Merged { from, into, version } => {
                Correction::Merged { from: id_of(from, bits), into: id_of(into, bits), version }
            }
            Self::Split { from, into, at, uuid, version } => Correction::Split {
                from: id_of(from, bits),
                into: id_of(into, bits),
                at,
                uuid: EventId::new(&strings.require(uuid)?),
                version,
            },
        })
    }
}

impl WireAnchor {
    pub(super) fn write(anchor: &SessionAnchor) -> Self {
        Self {
            entry: anchor.entry as u32,
            id: id_half(anchor.id),
            is_primary: anchor.is_primary,
            version: anchor.version,
            late: WireLate::write(&anchor.late),
        }
    }

    pub(super) fn read(&self, bits: u64) -> Result<SessionAnchor, FormatError> {
        Ok(SessionAnchor {
            entry: self.entry as usize,
            id: id_of(self.id, bits),
            is_primary: self.is_primary,
            version: self.version,
            late: self.late.read()?,
        })
    }
}
