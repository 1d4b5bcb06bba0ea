//! One declaration of a struct is its layout: the fields, in order, without padding. The macros
//! derive encoding, decoding, the documentation's table and the sample values of tests from it.

/// Declares a struct whose wire layout is its fields in order.
macro_rules! wire_struct {
    ($(#[doc = $doc:literal])* pub struct $name:ident {
        $($(#[doc = $field_doc:literal])* pub $field:ident: $type:ty),* $(,)?
    }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[doc = $field_doc])* pub $field: $type,)*
        }

        wire_fields!($name [$($doc)*] { $($field: $type [$($field_doc)*]),* });
    };
}

/// Gives a struct that exists elsewhere (`types`) the layout of its fields in order.
macro_rules! wire_fields {
    ($name:ident [$($doc:literal)*] {
        $($field:ident: $type:ty [$($field_doc:literal)*]),* $(,)?
    }) => {
        impl $crate::protocol::native::wire::Wire for $name {
            const MIN_BYTES: usize =
                0 $(+ <$type as $crate::protocol::native::wire::Wire>::MIN_BYTES)*;

            #[allow(unused_variables)] // a struct without fields has no bytes
            fn put(&self, out: &mut Vec<u8>) {
                $($crate::protocol::native::wire::Wire::put(&self.$field, out);)*
            }

            #[allow(unused_variables)]
            fn take(
                from: &mut $crate::protocol::native::wire::Reader<'_>,
            ) -> Result<Self, $crate::protocol::native::wire::DecodeError> {
                Ok($name {
                    $($field: <$type as $crate::protocol::native::wire::Wire>::take(from)
                        .map_err(|error| error.in_field(stringify!($field)))?,)*
                })
            }

            #[cfg(test)]
            fn describe(docs: &mut $crate::protocol::native::sample::Docs) -> String {
                let fields = vec![$((
                    stringify!($field),
                    <$type as $crate::protocol::native::wire::Wire>::describe(docs),
                    concat!($($field_doc),*),
                )),*];
                docs.add(module_path!(), stringify!($name), concat!($($doc),*), fields)
            }

            #[cfg(test)]
            #[allow(unused_variables)]
            fn sample(source: &mut $crate::protocol::native::sample::Source) -> Self {
                $name { $($field: $crate::protocol::native::wire::Wire::sample(source),)* }
            }
        }
    };
}

/// Declares an enum of one tag byte followed by the variant's fields.
macro_rules! wire_enum {
    ($(#[doc = $doc:literal])* pub enum $name:ident {
        $($(#[doc = $variant_doc:literal])* $tag:literal => $variant:ident $({
            $($(#[doc = $field_doc:literal])* $field:ident: $type:ty),* $(,)?
        })?),* $(,)?
    }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[doc = $variant_doc])* $variant $({
                $($(#[doc = $field_doc])* $field: $type,)*
            })?,)*
        }

        wire_variants!($name { $($tag => $variant [$($variant_doc)*] $({ $($field: $type),* })?),* });
    };
}

/// Gives an enum that exists elsewhere the layout "tag byte, then the variant's fields".
macro_rules! wire_variants {
    ($name:ident {
        $($tag:literal => $variant:ident [$($doc:literal)*]
            $({ $($field:ident: $type:ty),* $(,)? })?),* $(,)?
    }) => {
        impl $crate::protocol::native::wire::Wire for $name {
            const MIN_BYTES: usize = 1;

            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $($name::$variant $({ $($field),* })? => {
                        out.push($tag);
                        $($($crate::protocol::native::wire::Wire::put($field, out);)*)?
                    })*
                }
            }

            fn take(
                from: &mut $crate::protocol::native::wire::Reader<'_>,
            ) -> Result<Self, $crate::protocol::native::wire::DecodeError> {
                match from.u8()? {
                    $($tag => Ok($name::$variant $({
                        $($field: <$type as $crate::protocol::native::wire::Wire>::take(from)
                            .map_err(|error| error.in_field(stringify!($field)))?),*
                    })?),)*
                    found => Err($crate::protocol::native::wire::DecodeError::value(
                        u64::from(found), stringify!($name),
                    )),
                }
            }

            #[cfg(test)]
            fn describe(docs: &mut $crate::protocol::native::sample::Docs) -> String {
                let variants: Vec<$crate::protocol::native::sample::Variant> = vec![$((
                        $tag,
                        stringify!($variant),
                        vec![$($((
                            stringify!($field),
                            <$type as $crate::protocol::native::wire::Wire>::describe(docs),
                        )),*)?],
                        concat!($($doc),*),
                    )),*];
                docs.add_enum(stringify!($name), variants)
            }

            #[cfg(test)]
            #[allow(unused_assignments, unused_mut, unused_variables)]
            fn sample(source: &mut $crate::protocol::native::sample::Source) -> Self {
                let count = [$($tag as u8),*].len();
                let chosen = source.choose(count);
                let mut index = 0;
                $(
                    if index == chosen {
                        return $name::$variant $({
                            $($field: $crate::protocol::native::wire::Wire::sample(source)),*
                        })?;
                    }
                    index += 1;
                )*
                unreachable!("choose() stays below the number of variants")
            }
        }
    };
}
