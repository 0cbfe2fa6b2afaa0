//! A macro for a struct whose defaults are declared beside its fields.

/// Declares a struct in which each field is followed by its default, and implements `Default` with these. Adds the default to
/// each field's documentation.
macro_rules! with_defaults {
    (
        $(#[$attributes:meta])*
        $vis:vis struct $name:ident {
            $($(#[$field_attributes:meta])* $field_vis:vis $field:ident: $type:ty = $default:expr,)*
        }
    ) => {
        $(#[$attributes])*
        $vis struct $name {
            $(
                $(#[$field_attributes])*
                #[doc = concat!("\n\nDefault: `", stringify!($default), "`.")]
                $field_vis $field: $type,
            )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
}

pub(super) use with_defaults;
