//! A struct whose fields have their defaults beside them.

/// Declares a struct in which each field is followed by its default, and implements `Default` accordingly. The documentation
/// of a field ends with its default.
macro_rules! with_defaults {
    (
        $(#[$about:meta])*
        $vis:vis struct $name:ident {
            $($(#[$field_about:meta])* $field_vis:vis $field:ident: $type:ty = $default:expr,)*
        }
    ) => {
        $(#[$about])*
        $vis struct $name {
            $(
                $(#[$field_about])*
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
