from rap.adapters import Adapter as Adapter
